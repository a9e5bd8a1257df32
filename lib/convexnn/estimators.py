r"""
Two-layer networks fitted to the global optimum, with the gap that certifies it.

The estimators solve the gated and the ReLU program over all activation patterns of the
data or over given ones, one output at a time.
"""

import warnings

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MultiOutputMixin,
    RegressorMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lib._backend import (
    as_kind,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    check_samples,
    is_torch,
    make_rng,
    to_numpy,
)
from lib.convexnn.arrangements import enumerate_arrangements, sample_arrangements

__all__ = [
    "ConvexReLUClassifier",
    "ConvexReLURegressor",
    "GatedReLUClassifier",
    "GatedReLURegressor",
]


class _ConvexNetwork(BaseEstimator):
    # What the four estimators share: patterns, the loop over outputs, certificates.

    def _check_parameters(self):
        check_real("beta", self.beta, allow_zero=True)
        check_real("tol", self.tol)
        check_integer("max_iter", self.max_iter)
        check_integer("max_cells", self.max_cells)
        check_choice("solver", self.solver, self._solvers)
        if isinstance(self.device, str) and self.device.startswith("cuda"):
            import torch

            if not torch.cuda.is_available():
                raise ValueError(f"device is {self.device!r}, but no GPU is there")
        elif self.device not in (None, "cpu"):
            raise ValueError(
                f"device must be None, 'cpu' or 'cuda', got {self.device!r}"
            )

    def _patterns(self, X):
        # Masks (n, P), a gate vector for each, and whether no pattern is missing.
        gates = self.gates
        if gates is None:
            return *enumerate_arrangements(
                X, max_cells=self.max_cells, return_gates=True
            ), True
        if np.ndim(to_numpy(gates)) == 0:
            check_integer("gates", gates)
            rng = make_rng(self.random_state)
            return *sample_arrangements(X, gates, rng, return_gates=True), False
        gates = to_numpy(gates)
        if gates.ndim != 2 or gates.shape[1] == 0:
            raise ValueError(
                "gates must be None, a number, masks of shape (n, P) or vectors of "
                f"shape (d, P), got shape {gates.shape}"
            )
        rows = X.shape[0] if gates.dtype == bool else X.shape[1]
        if len(gates) != rows:
            what = "masks" if gates.dtype == bool else "vectors"
            raise ValueError(f"gates as {what} need {rows} rows, got {len(gates)}")
        if gates.dtype == bool:
            return gates, np.column_stack([_gate(X, m) for m in gates.T]), False
        if not np.isfinite(gates).all():
            raise ValueError("gates must hold finite numbers, got NaN or infinity")
        gates = gates.astype(np.float64)
        return X @ gates >= 0, gates, False

    def _fit_targets(self, X, Y, like):
        # X (n, d), Y (n, K) in float64; ``like`` has the kind, dtype and device of
        # the answers.
        masks, gates, self.exact_ = self._patterns(X)
        self._data = X, Y, masks
        fits = [self._solve(X, masks, y) for y in Y.T]
        self._store(fits, gates, like)
        return self

    def _store(self, fits, gates, like):
        self.objective_ = float(sum(f.objective for f in fits))
        self.dual_objective_ = float(sum(f.dual_objective for f in fits))
        self.gap_ = float(sum(f.gap for f in fits))
        self.history_ = [np.array(f.history) for f in fits]
        self.n_iter_ = int(max(f.history[-1][0] for f in fits))
        self.converged_ = bool(
            all(f.gap <= self.tol * abs(f.objective) for f in fits)
        )
        self._fits = fits
        self.gates_ = as_kind(gates, like)
        self._set_weights(fits, like)
        if not self.converged_:
            warnings.warn(
                f"stopped after {self.n_iter_} steps with a duality gap of "
                f"{self.gap_:.3g}, objective {self.objective_:.6g}",
                ConvergenceWarning,
                stacklevel=4,
            )

    def path(self, betas):
        """
        Refit the same data for other penalties, each fit starting from the last.

        Parameters
        ----------
        betas : sequence of float
            Penalties; falling ones make the best starts.

        Returns
        -------
        list of estimator
            A fitted estimator for each penalty.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If a penalty is negative or not finite.

        Warns
        -----
        ConvergenceWarning
            If a duality gap stays above ``tol``.

        Examples
        --------
        >>> import numpy as np
        >>> from lib.convexnn import GatedReLURegressor
        >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> fit = GatedReLURegressor(0.5).fit(X, np.array([1.0, 2.0, 1.0]))
        >>> [f.beta for f in fit.path([1.0, 0.1])]
        [1.0, 0.1]
        """
        check_is_fitted(self, "objective_")
        X, Y, masks = self._data
        fits, fitted = self._fits, []
        for beta in betas:
            other = type(self)(**(self.get_params(deep=False) | {"beta": beta}))
            other._check_parameters()
            for name in ("n_features_in_", "exact_", "_data", "_n_outputs", *_LABELS):
                if hasattr(self, name):
                    setattr(other, name, getattr(self, name))
            fits = [
                other._solve(X, masks, y, fit.weights)
                for y, fit in zip(Y.T, fits, strict=True)
            ]
            other._store(fits, to_numpy(self.gates_), self.gates_)
            fitted.append(other)
        return fitted

    def _outputs(self, X):
        # Network outputs (n, K) in the kind of X.
        check_is_fitted(self, "objective_")
        X = check_samples(self, X, reset=False)
        check_same_kind(X, self.gates_, ("X", "the training data"))
        return X, self._forward(X)


_LABELS = ("classes_", "_binarizer")


def _gate(X, mask):
    # A vector that has this pattern on the rows of X, by a linear program.
    from scipy.optimize import linprog

    signed = np.where(mask, 1.0, -1.0)[:, None] * X
    used = np.abs(X).max(axis=1) > 0
    d = X.shape[1]
    answer = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.column_stack([-signed[used], np.ones(used.sum())]),
        b_ub=np.zeros(used.sum()),
        bounds=[(-1.0, 1.0)] * d + [(None, 1.0)],
    )
    if answer.x is None or answer.x[-1] <= 0 or not mask[~used].all():
        raise ValueError("gates has a mask that no neuron has on the rows of X")
    return answer.x[:d]


class _Gated(_ConvexNetwork):
    _solvers = ("auto", "ssn", "fista", "cvxpy")

    def _solve(self, X, masks, y, warm=None):
        import torch

        from lib.convexnn import gated

        device = self.device or "cpu"
        program = gated.GatedProgram(
            torch.as_tensor(X, device=device),
            torch.as_tensor(masks.astype(np.float64), device=device),
            torch.as_tensor(np.ascontiguousarray(y), device=device),
            float(self.beta),
        )
        if warm is None:
            warm = np.zeros((X.shape[1], masks.shape[1]))
        solve = {"fista": gated.solve_fista, "cvxpy": gated.solve_cvxpy}.get(
            self.solver, gated.solve_ssn
        )
        fit = solve(
            program, torch.as_tensor(warm, device=device), self.tol, self.max_iter
        )
        return fit._replace(weights=fit.weights.cpu().numpy())

    def _set_weights(self, fits, like):
        coef = np.stack([f.weights for f in fits])
        self.coef_ = as_kind(coef if self._n_outputs else coef[0], like)

    def _forward(self, X):
        gates, coef = self.gates_, self.coef_
        active = X @ gates >= 0
        coef = coef if coef.ndim == 3 else coef[None]
        columns = [(active * (X @ weights)).sum(1) for weights in coef]
        return _stack(columns)

    def to_network(self):
        """
        Write the fit as a gated network.

        Returns
        -------
        W1 : ndarray or Tensor of shape (d, K P)
            First layer; a unit's gate is the column of ``gates_`` with its number,
            modulo P.
        w2 : ndarray or Tensor of shape (K P,) or (K P, K)
            Second layer.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.

        Notes
        -----
        Every unit u becomes u / sqrt|u| and sqrt|u|, so that weight decay on both
        layers costs as much as the norm of u.

        Examples
        --------
        >>> import numpy as np
        >>> from lib.convexnn import GatedReLURegressor
        >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> fit = GatedReLURegressor(0.1).fit(X, np.array([1.0, 2.0, 1.0]))
        >>> W1, w2 = fit.to_network()
        >>> active = X @ fit.gates_ >= 0
        >>> np.allclose((active * (X @ W1)) @ w2, fit.predict(X))
        True
        """
        check_is_fitted(self, "objective_")
        blocks = [(f.weights, np.ones(f.weights.shape[1])) for f in self._fits]
        return _network(blocks, self._n_outputs, self.gates_)


class _ReLU(_ConvexNetwork):
    _solvers = ("auto", "cg", "cvxpy")

    def _solve(self, X, masks, y, warm=None):
        from lib.convexnn import relu

        device = None if self.device in (None, "cpu") else self.device
        program = relu.ReLUProgram(X, masks, y, float(self.beta), device)
        if self.solver == "cvxpy":
            fit = relu.solve_interior_point(program, self.tol, self.max_iter)
        else:
            fit = relu.solve_column_generation(
                program, self.tol, self.max_iter, warm
            )
        neurons, patterns, signs = fit.weights
        size = np.linalg.norm(neurons, axis=0)
        H = program.activations(neurons / np.maximum(size, 1e-300), patterns, signs)
        kept = relu.prune(H, size)
        neurons = neurons * (kept / np.maximum(size, 1e-300))
        used = kept > 0
        return fit._replace(weights=(neurons[:, used], patterns[used], signs[used]))

    def _set_weights(self, fits, like):
        P = self.gates_.shape[1]
        coef = np.zeros((len(fits), 2, self._data[0].shape[1], P))
        for block, fit in zip(coef, fits, strict=True):
            neurons, patterns, signs = fit.weights
            block[(signs < 0).astype(int), :, patterns] = neurons.T
        self.coef_ = as_kind(coef if self._n_outputs else coef[0], like)
        self.n_neurons_ = int(sum(len(f.weights[1]) for f in fits))

    def _forward(self, X):
        columns = []
        for fit in self._fits:
            neurons, _, signs = fit.weights
            H = X @ as_kind(neurons, self.gates_)
            columns.append((H * (H > 0)) @ as_kind(signs, self.gates_))
        return _stack(columns)

    def to_network(self):
        """
        Write the fit as a plain ReLU network.

        Returns
        -------
        W1 : ndarray or Tensor of shape (d, m)
            First layer; at most n neurons for every output.
        w2 : ndarray or Tensor of shape (m,) or (m, K)
            Second layer.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.

        Notes
        -----
        Every v becomes the neuron v / sqrt|v| with the output weight sqrt|v|, every w
        the same with a minus. Weight decay on both layers then costs what the convex
        penalty costs.

        Examples
        --------
        >>> import numpy as np
        >>> from lib.convexnn import ConvexReLURegressor
        >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> fit = ConvexReLURegressor(0.1).fit(X, np.array([1.0, 2.0, 1.0]))
        >>> W1, w2 = fit.to_network()
        >>> np.allclose(np.maximum(X @ W1, 0) @ w2, fit.predict(X))
        True
        """
        check_is_fitted(self, "objective_")
        blocks = [(f.weights[0], f.weights[2]) for f in self._fits]
        return _network(blocks, self._n_outputs, self.gates_)


def _stack(columns):
    if is_torch(columns[0]):
        import torch

        return torch.stack(columns, dim=1)
    return np.column_stack(columns)


def _network(blocks, n_outputs, like):
    # Both layers from blocks of (signed neurons, signs), one block an output.
    size = [np.linalg.norm(neurons, axis=0) for neurons, _ in blocks]
    first = [
        neurons / np.sqrt(np.maximum(s, 1e-300))
        for (neurons, _), s in zip(blocks, size, strict=True)
    ]
    second = np.zeros((sum(map(len, size)), len(blocks)))
    start = 0
    for k, ((_, signs), s) in enumerate(zip(blocks, size, strict=True)):
        second[start : start + len(s), k] = signs * np.sqrt(s)
        start += len(s)
    second = second if n_outputs else second[:, 0]
    return as_kind(np.column_stack(first), like), as_kind(second, like)


class _Regressor(MultiOutputMixin, RegressorMixin):
    # Fitting and predicting of real targets.

    def fit(self, X, y):
        """
        Fit the network.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Training points. There is no offset: append a column of ones for one.
        y : array-like or Tensor of shape (n,) or (n, K)
            Targets, of the kind of ``X``. Outputs are fitted one by one.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        TypeError
            If ``X`` and ``y`` differ in kind, or a type is wrong.
        ValueError
            If shapes disagree, an entry is not finite, a parameter is out of range or
            there are more than ``max_cells`` patterns; the message gives the number.

        Warns
        -----
        ConvergenceWarning
            If the duality gap stays above ``tol`` times the objective.
        """
        self._check_parameters()
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        X, y = check_samples(self, X, y, reset=True)
        points, targets = to_numpy(X).astype(float), to_numpy(y).astype(float)
        self._n_outputs = targets.shape[1] if targets.ndim == 2 else 0
        return self._fit_targets(points, targets.reshape(len(points), -1), X)

    def predict(self, X):
        """
        Predict by the fitted network.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points, of the kind of the training data.

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, K)
            Outputs.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If the kind is not that of the training data.
        ValueError
            If the number of features differs or an entry is not finite.
        """
        outputs = self._outputs(X)[1]
        return outputs if self._n_outputs else outputs[:, 0]

    def score(self, X, y):
        """
        Coefficient of determination of the predictions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, K)
            True targets.

        Returns
        -------
        float
            R squared, 1 at best.
        """
        from sklearn.metrics import r2_score

        return r2_score(to_numpy(y), to_numpy(self.predict(X)))


class _Classifier(ClassifierMixin):
    # Fitting and predicting of labels: one output a class, targets plus and minus one.

    def fit(self, X, y):
        """
        Fit one network a class to targets of plus and minus one; two classes share one.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Training points. There is no offset: append a column of ones for one.
        y : array-like of shape (n,)
            Labels.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        TypeError
            If a type is wrong.
        ValueError
            If shapes disagree, an entry is not finite, there is one class only, a
            parameter is out of range or there are more than ``max_cells`` patterns.

        Warns
        -----
        ConvergenceWarning
            If a duality gap stays above ``tol`` times its objective.
        """
        self._check_parameters()
        y = to_numpy(y) if is_torch(y) else y
        if is_torch(X):
            X = check_samples(self, X, reset=True)
        else:
            X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        y = np.asarray(y)
        if len(y) != X.shape[0]:
            raise ValueError(f"y must have the {X.shape[0]} rows of X, got {len(y)}")
        self._binarizer = LabelBinarizer(neg_label=-1, pos_label=1)
        targets = self._binarizer.fit_transform(y).astype(float)
        self.classes_ = self._binarizer.classes_
        if len(self.classes_) < 2:
            raise ValueError("y must have at least two classes, got 1 class")
        self._n_outputs = targets.shape[1] if targets.shape[1] > 1 else 0
        return self._fit_targets(to_numpy(X).astype(float), targets, X)

    def decision_function(self, X):
        """
        Evaluate the networks.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points, of the kind of the training data.

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, K)
            Outputs; with two classes, positive for the second.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the number of features differs or an entry is not finite.
        """
        outputs = self._outputs(X)[1]
        return outputs if self._n_outputs else outputs[:, 0]

    def predict(self, X):
        """
        Predict labels: the class of the largest output.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points, of the kind of the training data.

        Returns
        -------
        ndarray of shape (n,)
            Labels.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the number of features differs or an entry is not finite.
        """
        outputs = to_numpy(self.decision_function(X))
        if outputs.ndim == 1:
            return self.classes_[(outputs > 0).astype(int)]
        return self.classes_[outputs.argmax(axis=1)]


class GatedReLURegressor(_Regressor, _Gated):
    r"""
    Fit a gated ReLU network with weight decay to the global optimum.

    .. math:: \min_u \tfrac12 \Bigl\lVert \sum_i D_i X u_i - y \Bigr\rVert^2
       + \beta \sum_i \lVert u_i \rVert

    A unit of a gated network is linear, and is switched on by the sign of another,
    fixed vector.

    Parameters
    ----------
    beta : float, default=1.0
        Weight decay, >= 0. It multiplies against the sum of squares over the data
        points: a text that averages over n points calls it n times lambda.
    gates : None, int or array-like, default=None
        ``None``: all activation patterns, at most ``max_cells``. A number: patterns of
        that many Gaussian neurons. An array: boolean masks of shape (n, P), or gate
        vectors of shape (d, P).
    solver : str, default="auto"
        ``"ssn"`` (also ``"auto"``), a semismooth Newton method; ``"fista"``;
        ``"cvxpy"``, an interior-point method.
    tol : float, default=1e-6
        Duality gap to reach, relative to the objective.
    max_iter : int, default=500
        Most Newton steps, gradient steps or rounds.
    max_cells : int, default=10**5
        Most patterns to enumerate.
    device : {None, "cpu", "cuda"}, default=None
        Where to compute; the answers are of the kind of the data.
    random_state : int, Generator, RandomState or None, default=None
        Source of sampled patterns.

    Attributes
    ----------
    coef_ : ndarray or Tensor of shape (d, P)
        Weights of the convex program, with a leading axis for several outputs.
    gates_ : ndarray or Tensor of shape (d, P)
        A neuron with each pattern.
    objective_, dual_objective_, gap_ : float
        Value of the program over these patterns, a lower bound on its optimum, and
        their difference, summed over outputs.
    exact_ : bool
        Whether all patterns were included, so that the gap holds against every network.
    converged_ : bool
        Whether the gap is at most ``tol`` times the objective.
    n_iter_ : int
        Steps taken.
    history_ : list of ndarray of shape (k, 3)
        For each output rows of (step, objective, dual objective).
    n_features_in_ : int
        Number of features.

    Notes
    -----
    A Newton step takes O(n^2 k + n d P) for the k active patterns and a
    Cholesky factorisation of order n. The gated program is a relaxation of the
    ReLU program: its value is never larger.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Theorem 1 and Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import GatedReLURegressor
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = GatedReLURegressor(0.1).fit(X, np.array([1.0, 2.0, 1.0]))
    >>> fit.gap_ < 1e-5 and fit.exact_
    True
    """

    def __init__(
        self,
        beta=1.0,
        gates=None,
        solver="auto",
        *,
        tol=1e-6,
        max_iter=500,
        max_cells=10**5,
        device=None,
        random_state=None,
    ):
        self.beta = beta
        self.gates = gates
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.max_cells = max_cells
        self.device = device
        self.random_state = random_state


class GatedReLUClassifier(_Classifier, _Gated):
    r"""
    Classify by gated ReLU networks fitted to the global optimum.

    .. math:: \min_u \tfrac12 \Bigl\lVert \sum_i D_i X u_i - y \Bigr\rVert^2
       + \beta \sum_i \lVert u_i \rVert

    A unit of a gated network is linear, and is switched on by the sign of another,
    fixed vector.

    Targets are plus and minus one, one network a class; two classes share one.

    Parameters
    ----------
    beta : float, default=1.0
        Weight decay, >= 0. It multiplies against the sum of squares over the data
        points: a text that averages over n points calls it n times lambda.
    gates : None, int or array-like, default=None
        ``None``: all activation patterns, at most ``max_cells``. A number: patterns of
        that many Gaussian neurons. An array: boolean masks of shape (n, P), or gate
        vectors of shape (d, P).
    solver : str, default="auto"
        ``"ssn"`` (also ``"auto"``), a semismooth Newton method; ``"fista"``;
        ``"cvxpy"``, an interior-point method.
    tol : float, default=1e-6
        Duality gap to reach, relative to the objective.
    max_iter : int, default=500
        Most Newton steps, gradient steps or rounds.
    max_cells : int, default=10**5
        Most patterns to enumerate.
    device : {None, "cpu", "cuda"}, default=None
        Where to compute; the answers are of the kind of the data.
    random_state : int, Generator, RandomState or None, default=None
        Source of sampled patterns.

    Attributes
    ----------
    coef_ : ndarray or Tensor of shape (d, P)
        Weights of the convex program, with a leading axis for several outputs.
    gates_ : ndarray or Tensor of shape (d, P)
        A neuron with each pattern.
    objective_, dual_objective_, gap_ : float
        Value of the program over these patterns, a lower bound on its optimum, and
        their difference, summed over outputs.
    exact_ : bool
        Whether all patterns were included, so that the gap holds against every network.
    converged_ : bool
        Whether the gap is at most ``tol`` times the objective.
    n_iter_ : int
        Steps taken.
    history_ : list of ndarray of shape (k, 3)
        For each output rows of (step, objective, dual objective).
    classes_ : ndarray
        Labels.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    A Newton step takes O(n^2 k + n d P) for the k active patterns and a
    Cholesky factorisation of order n. The gated program is a relaxation of the
    ReLU program: its value is never larger.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Theorem 1 and Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import GatedReLUClassifier
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = GatedReLUClassifier(0.1).fit(X, ["a", "b", "a"])
    >>> fit.predict(X)
    array(['a', 'b', 'a'], dtype='<U1')
    """

    def __init__(
        self,
        beta=1.0,
        gates=None,
        solver="auto",
        *,
        tol=1e-6,
        max_iter=500,
        max_cells=10**5,
        device=None,
        random_state=None,
    ):
        self.beta = beta
        self.gates = gates
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.max_cells = max_cells
        self.device = device
        self.random_state = random_state


class ConvexReLURegressor(_Regressor, _ReLU):
    r"""
    Fit a two-layer ReLU network with weight decay to the global optimum.

    .. math:: \min_{W, a} \tfrac12 \lVert (X W)_+ a - y \rVert^2
       + \tfrac{\beta}{2} (\lVert W \rVert_F^2 + \lVert a \rVert^2)

    The minimum over networks of every width is found by its convex program.

    Parameters
    ----------
    beta : float, default=1.0
        Weight decay, >= 0. It multiplies against the sum of squares over the data
        points: a text that averages over n points calls it n times lambda.
    gates : None, int or array-like, default=None
        ``None``: all activation patterns, at most ``max_cells``. A number: patterns of
        that many Gaussian neurons. An array: boolean masks of shape (n, P), or gate
        vectors of shape (d, P).
    solver : str, default="auto"
        ``"cg"`` (also ``"auto"``), column generation; ``"cvxpy"``, an
        interior-point method.
    tol : float, default=1e-6
        Duality gap to reach, relative to the objective.
    max_iter : int, default=500
        Most Newton steps, gradient steps or rounds.
    max_cells : int, default=10**5
        Most patterns to enumerate.
    device : {None, "cpu", "cuda"}, default=None
        Where to compute; the answers are of the kind of the data.
    random_state : int, Generator, RandomState or None, default=None
        Source of sampled patterns.

    Attributes
    ----------
    coef_ : ndarray or Tensor of shape (2, d, P)
        Weights of the convex program, with a leading axis for several outputs.
    gates_ : ndarray or Tensor of shape (d, P)
        A neuron with each pattern.
    objective_, dual_objective_, gap_ : float
        Value of the program over these patterns, a lower bound on its optimum, and
        their difference, summed over outputs.
    exact_ : bool
        Whether all patterns were included, so that the gap holds against every network.
    converged_ : bool
        Whether the gap is at most ``tol`` times the objective.
    n_iter_ : int
        Steps taken.
    history_ : list of ndarray of shape (k, 3)
        For each output rows of (step, objective, dual objective).
    n_neurons_ : int
        Neurons used, at most n for every output.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    A round takes O(n d P) and a projection on a cone for every pattern whose
    bound does not rule it out.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Theorem 1 and Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import ConvexReLURegressor
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = ConvexReLURegressor(0.1).fit(X, np.array([1.0, 2.0, 1.0]))
    >>> fit.gap_ < 1e-5 and fit.exact_
    True
    """

    def __init__(
        self,
        beta=1.0,
        gates=None,
        solver="auto",
        *,
        tol=1e-6,
        max_iter=500,
        max_cells=10**5,
        device=None,
        random_state=None,
    ):
        self.beta = beta
        self.gates = gates
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.max_cells = max_cells
        self.device = device
        self.random_state = random_state


class ConvexReLUClassifier(_Classifier, _ReLU):
    r"""
    Classify by two-layer ReLU networks fitted to the global optimum.

    .. math:: \min_{W, a} \tfrac12 \lVert (X W)_+ a - y \rVert^2
       + \tfrac{\beta}{2} (\lVert W \rVert_F^2 + \lVert a \rVert^2)

    The minimum over networks of every width is found by its convex program.

    Targets are plus and minus one, one network a class; two classes share one.

    Parameters
    ----------
    beta : float, default=1.0
        Weight decay, >= 0. It multiplies against the sum of squares over the data
        points: a text that averages over n points calls it n times lambda.
    gates : None, int or array-like, default=None
        ``None``: all activation patterns, at most ``max_cells``. A number: patterns of
        that many Gaussian neurons. An array: boolean masks of shape (n, P), or gate
        vectors of shape (d, P).
    solver : str, default="auto"
        ``"cg"`` (also ``"auto"``), column generation; ``"cvxpy"``, an
        interior-point method.
    tol : float, default=1e-6
        Duality gap to reach, relative to the objective.
    max_iter : int, default=500
        Most Newton steps, gradient steps or rounds.
    max_cells : int, default=10**5
        Most patterns to enumerate.
    device : {None, "cpu", "cuda"}, default=None
        Where to compute; the answers are of the kind of the data.
    random_state : int, Generator, RandomState or None, default=None
        Source of sampled patterns.

    Attributes
    ----------
    coef_ : ndarray or Tensor of shape (2, d, P)
        Weights of the convex program, with a leading axis for several outputs.
    gates_ : ndarray or Tensor of shape (d, P)
        A neuron with each pattern.
    objective_, dual_objective_, gap_ : float
        Value of the program over these patterns, a lower bound on its optimum, and
        their difference, summed over outputs.
    exact_ : bool
        Whether all patterns were included, so that the gap holds against every network.
    converged_ : bool
        Whether the gap is at most ``tol`` times the objective.
    n_iter_ : int
        Steps taken.
    history_ : list of ndarray of shape (k, 3)
        For each output rows of (step, objective, dual objective).
    n_neurons_ : int
        Neurons used, at most n for every output.
    classes_ : ndarray
        Labels.
    n_features_in_ : int
        Number of features.

    Notes
    -----
    A round takes O(n d P) and a projection on a cone for every pattern whose
    bound does not rule it out.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Theorem 1 and Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import ConvexReLUClassifier
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = ConvexReLUClassifier(0.1).fit(X, ["a", "b", "a"])
    >>> fit.predict(X)
    array(['a', 'b', 'a'], dtype='<U1')
    """

    def __init__(
        self,
        beta=1.0,
        gates=None,
        solver="auto",
        *,
        tol=1e-6,
        max_iter=500,
        max_cells=10**5,
        device=None,
        random_state=None,
    ):
        self.beta = beta
        self.gates = gates
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.max_cells = max_cells
        self.device = device
        self.random_state = random_state
