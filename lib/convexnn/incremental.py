r"""
Networks that grow by one neuron a step.

Both methods ask the oracle for the neuron that correlates most with the residual:
ConvexNN adds it and refits all output weights under an l1 penalty; Frank-Wolfe moves
towards it inside a ball of the variation norm.
"""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from lib._backend import check_choice, check_integer, check_real, make_rng
from lib.convexnn.arrangements import enumerate_arrangements
from lib.convexnn.oracles import relu_lmo, weighted_linear_classifier

__all__ = ["ConvexNNRegressor", "FrankWolfeNN"]


class ConvexNNRegressor(RegressorMixin, BaseEstimator):
    r"""
    Fit a network of sign or tanh units, one unit at a time.

    .. math:: C(w) = \sum_t \tfrac12 \Bigl( \sum_i w_i h_i(x_t) - y_t \Bigr)^2
       + \lambda \lVert w \rVert_1, \qquad h_i(x) = s(v_i^\top (x, 1))

    Parameters
    ----------
    alpha : float, default=1.0
        Penalty lambda, > 0.
    activation : {"sign", "tanh"}, default="sign"
        The units.
    oracle : {"auto", "exact", "logistic"}, default="auto"
        How a unit is found; see :func:`weighted_linear_classifier`. For ``"tanh"`` the
        classifier is the start of an ascent on the correlation.
    tune : bool, default=False
        Whether all weights of a tanh network are improved after each unit.
    max_units : int, default=200
        Most units.
    random_state : int, Generator, RandomState or None, default=None
        Source of the starts of the ascent.

    Attributes
    ----------
    units_ : ndarray of shape (d + 1, m)
        Normals and offsets of the units; the first is the constant.
    weights_ : ndarray of shape (m,)
        Output weights.
    objective_ : float
        The cost C.
    gap_ : float
        Bound on how far the cost is from the optimum over all units; infinite unless
        the oracle is exact.
    converged_ : bool
        Whether no unit was found that correlates by more than ``alpha``.
    n_iter_ : int
        Units asked for.
    history_ : ndarray of shape (k, 3)
        Rows of (cost, correlation of the unit found, units with a weight).
    n_features_in_ : int
        Number of features.

    Notes
    -----
    The output weights are refitted after every unit: without that the residual, and
    with it the answer of the oracle, would never change. If the oracle is exact and
    finds no correlation above lambda, the network is optimal among all networks, and
    n + 1 units suffice.

    References
    ----------
    .. [1] Y. Bengio et al., "Convex neural networks", NeurIPS 2005, Algorithm ConvexNN
       and Theorems 3.1 and 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import ConvexNNRegressor
    >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> network = ConvexNNRegressor(0.1).fit(X, np.array([1.0, -1.0, -1.0, 1.0]))
    >>> network.converged_, bool(network.gap_ < 1e-6)
    (True, True)
    """

    def __init__(
        self,
        alpha=1.0,
        activation="sign",
        oracle="auto",
        tune=False,
        max_units=200,
        *,
        random_state=None,
    ):
        self.alpha = alpha
        self.activation = activation
        self.oracle = oracle
        self.tune = tune
        self.max_units = max_units
        self.random_state = random_state

    def fit(self, X, y):
        """
        Grow the network.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training points.
        y : array-like of shape (n,)
            Targets.

        Returns
        -------
        self : ConvexNNRegressor
            The fitted estimator.

        Raises
        ------
        TypeError
            If a type is wrong.
        ValueError
            If a shape or a parameter is wrong or an entry is not finite.
        """
        check_real("alpha", self.alpha)
        check_choice("activation", self.activation, ("sign", "tanh"))
        check_choice("oracle", self.oracle, ("auto", "exact", "logistic"))
        check_integer("max_units", self.max_units)
        if not isinstance(self.tune, (bool, np.bool_)):
            raise TypeError(f"tune must be a boolean, got {self.tune!r}")
        if self.tune and self.activation == "sign":
            raise ValueError("tune needs tanh units: sign units have no gradient")
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        self._lifted = lifted = np.column_stack([X, np.ones(len(X))])
        rng = make_rng(self.random_state)
        units = np.zeros((lifted.shape[1], 1))
        units[-1] = 1.0
        if self.activation == "tanh":
            units[-1] = 20.0  # tanh(20) is one in float64
        weights = _lasso(self._activate(lifted, units), y, self.alpha, np.zeros(1))
        history, self.converged_ = [], False
        for _ in range(self.max_units):
            H = self._activate(lifted, units)
            q = H @ weights - y  # derivative of the loss in the output
            answer = weighted_linear_classifier(X, q, self.oracle)
            unit = answer.v
            if self.activation == "tanh":
                unit = self._ascend(lifted, q, unit, rng)
            h = self._activate(lifted, unit[:, None])[:, 0]
            value = abs(float(q @ h))
            history.append((self._cost(H, weights, y), value, (weights != 0).sum()))
            if value <= self.alpha * (1 + 1e-9):
                self.converged_ = True
                break
            units = np.column_stack([units, unit])
            weights = np.append(weights, 0.0)
            weights = _lasso(np.column_stack([H, h]), y, self.alpha, weights)
            if self.tune:
                units, weights = self._tune(lifted, y, units, weights)
        H = self._activate(lifted, units)
        kept = weights != 0
        kept[0] = True
        self.units_, self.weights_ = units[:, kept], weights[kept]
        self.objective_ = self._cost(H, weights, y)
        self.n_iter_ = len(history)
        self.history_ = np.array(history)
        exact = self.activation == "sign" and answer.exact
        self.gap_ = self._gap(X, y - H @ weights, y) if exact else np.inf
        del self._lifted
        return self

    def predict(self, X):
        """
        Evaluate the network.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points.

        Returns
        -------
        ndarray of shape (n,)
            Outputs.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the number of features differs or an entry is not finite.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        lifted = np.column_stack([X, np.ones(len(X))])
        return self._activate(lifted, self.units_) @ self.weights_

    def _activate(self, lifted, units):
        H = lifted @ units
        return np.where(H >= 0, 1.0, -1.0) if self.activation == "sign" else np.tanh(H)

    def _cost(self, H, weights, y):
        residual = H @ weights - y
        penalty = self.alpha * np.abs(weights).sum()
        return float(0.5 * residual @ residual + penalty)

    def _gap(self, X, residual, y):
        # The residual, shrunk until no unit correlates by more than alpha, is feasible
        # for the dual. Units and their negatives give the same correlation.
        value = max(
            weighted_linear_classifier(X, s * residual, self.oracle).value
            for s in (1, -1)
        )
        v = residual * min(1.0, self.alpha / max(value, 1e-300))
        return max(0.0, self.objective_ - float(y @ v - 0.5 * v @ v))

    def _ascend(self, lifted, q, start, rng):
        # Best correlation of a tanh unit by L-BFGS, from the classifier and some
        # random directions.
        from scipy.optimize import minimize

        def loss(v):
            h = np.tanh(lifted @ v)
            return -(q @ h), -(lifted.T @ (q * (1 - h * h)))

        starts = [5 * start / max(np.linalg.norm(start), 1e-300)]
        starts += list(rng.standard_normal((4, len(start))))
        answers = [minimize(loss, v, jac=True, method="L-BFGS-B") for v in starts]
        return min(answers, key=lambda a: a.fun).x

    def _tune(self, lifted, y, units, weights):
        # A few L-BFGS steps on all weights; output weights keep their signs.
        from scipy.optimize import minimize

        shape, signs = units.shape, np.sign(weights)

        def loss(z):
            V, w = z[: units.size].reshape(shape), z[units.size :]
            H = np.tanh(lifted @ V)
            r = H @ w - y
            back = (r[:, None] * w) * (1 - H * H)
            value = 0.5 * r @ r + self.alpha * (signs @ w)
            slopes = lifted.T @ back, H.T @ r + self.alpha * signs
            return value, np.concatenate([slopes[0].ravel(), slopes[1]])

        start = np.concatenate([units.ravel(), weights])
        bounds = [(None, None)] * units.size
        sides = {1.0: (0, None), -1.0: (None, 0), 0.0: (0, 0)}
        z = minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds + [sides[s] for s in signs],
            options={"maxiter": 20},
        ).x
        units, weights = z[: units.size].reshape(shape), z[units.size :]
        H = np.tanh(lifted @ units)
        return units, _lasso(H, y, self.alpha, weights)


def _lasso(H, y, alpha, start):
    # argmin_w 1/2 |Hw - y|^2 + alpha |w|_1 by coordinate descent, warm.
    from sklearn.linear_model import Lasso

    model = Lasso(
        alpha / len(y), fit_intercept=False, warm_start=True, tol=1e-12, max_iter=10**5
    )
    model.coef_ = start.copy()
    return model.fit(np.asfortranarray(H), y).coef_


class FrankWolfeNN(RegressorMixin, BaseEstimator):
    r"""
    Fit a ReLU network in a ball of the variation norm by Frank-Wolfe steps.

    .. math:: \min_{\gamma_1(f) \le \delta} \sum_i (f(a_i) - y_i)^2

    Parameters
    ----------
    delta : float, default=1.0
        Radius of the ball, > 0: the sum of the absolute output weights of unit neurons.
    oracle : {"exact", "sign_cone", "local"}, default="exact"
        How a neuron is found; see :func:`relu_lmo`.
    batch : {"full", "hazan-luo"} or callable, default="full"
        Samples in the gradient of step t: all, the growing batches of Hazan and Luo,
        or ``batch(t)``.
    line_search : bool, default=False
        Whether the step minimises the loss on the segment instead of 2 / (t + 1).
    tol : float, default=1e-6
        Frank-Wolfe gap to reach, relative to the squared norm of y; only steps with all
        samples are judged.
    max_iter : int, default=300
        Most steps.
    random_state : int, Generator, RandomState or None, default=None
        Source of batches and starts.

    Attributes
    ----------
    neurons_ : ndarray of shape (d, m)
        Unit neurons.
    weights_ : ndarray of shape (m,)
        Output weights; their absolute sum is at most ``delta``.
    objective_ : float
        Sum of the squared errors.
    gap_ : float
        Bound on how far the objective is from the optimum; infinite unless the oracle
        was exact on all samples.
    converged_ : bool
        Whether the gap fell to ``tol``.
    n_iter_ : int
        Steps taken.
    history_ : ndarray of shape (k, 3)
        Rows of (objective, gap as the oracle gave it, samples in the gradient).
    n_features_in_ : int
        Number of features.

    Notes
    -----
    After T >= 2 steps the objective is at most 16 R^2 delta^2 / (T + 1) above the
    optimum, where R bounds the norm of a unit neuron's outputs. A gap computed with an
    oracle that is not exact can be too small, even negative; it stands in the history
    and certifies nothing. The batches of Hazan and Luo have
    (G (t + 1) / (L D))^2 samples, G the Lipschitz constant of one sample's loss on the
    ball, L the smoothness of the loss and D the diameter.

    References
    ----------
    .. [1] A. d'Aspremont and M. Pilanci, "Global convergence of Frank Wolfe on one
       hidden layer networks", 2020, Algorithm 1 and Section 2.
    .. [2] E. Hazan and H. Luo, "Variance-reduced and projection-free stochastic
       optimization", ICML 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import FrankWolfeNN
    >>> A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = FrankWolfeNN(3.0, line_search=True).fit(A, np.array([1.0, 0.0, 1.0]))
    >>> bool(fit.objective_ <= fit.gap_ + 1e-12)
    True
    """

    def __init__(
        self,
        delta=1.0,
        oracle="exact",
        batch="full",
        line_search=False,
        *,
        tol=1e-6,
        max_iter=300,
        random_state=None,
    ):
        self.delta = delta
        self.oracle = oracle
        self.batch = batch
        self.line_search = line_search
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X, y):
        """
        Run the steps.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Training points.
        y : array-like of shape (n,)
            Targets.

        Returns
        -------
        self : FrankWolfeNN
            The fitted estimator.

        Raises
        ------
        TypeError
            If a type is wrong.
        ValueError
            If a shape or a parameter is wrong, an entry is not finite, or the exact
            oracle meets more patterns than can be listed.
        """
        check_real("delta", self.delta)
        check_choice("oracle", self.oracle, ("exact", "sign_cone", "local"))
        check_real("tol", self.tol)
        check_integer("max_iter", self.max_iter)
        if not callable(self.batch):
            check_choice("batch", self.batch, ("full", "hazan-luo"))
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        rng = make_rng(self.random_state)
        masks = enumerate_arrangements(X) if self.oracle == "exact" else None
        n = len(y)
        z, neurons, weights = np.zeros(n), [], np.zeros(0)
        history, self.converged_, self.gap_ = [], False, np.inf
        for t in range(1, self.max_iter + 1):
            g = 2 * (z - y)
            size = self._samples(t, X, y)
            if size < n:
                chosen = rng.choice(n, size, replace=False)
                partial = np.zeros(n)
                partial[chosen] = g[chosen] * (n / size)
            else:
                partial = g
            answer = relu_lmo(X, partial, self.oracle, masks, random_state=rng)
            u, sign = answer.u, -answer.sign
            target = sign * self.delta * np.maximum(X @ u, 0)
            gap = float(g @ (z - target))
            history.append((float((z - y) @ (z - y)), gap, size))
            if size == n and answer.exact:
                self.gap_ = gap
                if gap <= self.tol * float(y @ y):
                    self.converged_ = True
                    break
            step = 2 / (t + 1)
            if self.line_search:
                move = target - z
                step = float(np.clip(-(g @ move) / 2 / max(move @ move, 1e-300), 0, 1))
            z = (1 - step) * z + step * target
            weights = np.append((1 - step) * weights, step * sign * self.delta)
            neurons.append(u)
        kept = weights != 0
        self.neurons_ = np.array(neurons).reshape(-1, X.shape[1]).T[:, kept]
        self.weights_ = weights[kept]
        self.objective_ = float((z - y) @ (z - y))
        if np.isfinite(self.gap_) and not self.converged_:
            answer = relu_lmo(X, 2 * (z - y), self.oracle, masks, random_state=rng)
            exact = float(2 * (z - y) @ z + self.delta * answer.value)
            self.gap_ = exact if answer.exact else np.inf
        self.n_iter_ = len(history)
        self.history_ = np.array(history)
        return self

    def predict(self, X):
        """
        Evaluate the network.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Points.

        Returns
        -------
        ndarray of shape (n,)
            Outputs.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the number of features differs or an entry is not finite.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.maximum(X @ self.neurons_, 0) @ self.weights_

    def _samples(self, t, X, y):
        n = len(y)
        if callable(self.batch):
            size = self.batch(t)
            check_integer("batch(t)", size)
            return min(int(size), n)
        if self.batch == "full":
            return n
        # The loss is the mean of n (f_i - y_i)^2, and outputs are at most delta |a_i|.
        rows = np.linalg.norm(X, axis=1)
        G = 2 * n * np.max(self.delta * rows + np.abs(y))
        diameter = 2 * self.delta * np.linalg.norm(X, 2)
        return min(n, int(np.ceil((G * (t + 1) / (2 * diameter)) ** 2)))
