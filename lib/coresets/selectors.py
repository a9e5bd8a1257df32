r"""
Selection of coresets from gradients.

CRAIG wants a similar gradient near every one, GRAD-MATCH the sum of all gradients,
GLISTER a small loss on held-out samples after a step. All take `Gradients`, or plain
vectors one a row.
"""

import sys
import warnings
from typing import NamedTuple

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    make_rng,
    to_numpy,
)
from lib.coresets.facility_location import (
    METHODS,
    as_index,
    check_eps,
    gains_of,
    greedi,
    greedy,
    nearest_counts,
    stochastic,
)
from lib.coresets.gradients import Gradients, as_gradients, check_labels
from lib.coresets.matching_pursuit import OnGradients, OnGram, pursue

__all__ = [
    "Coreset",
    "craig",
    "glister",
    "glister_weighted",
    "grad_match",
    "k_center_greedy",
    "random_coreset",
]

# Bytes of the largest matrix of all pairs.
_LIMIT = 850_000_000


class _Triple(NamedTuple):
    indices: object
    weights: object
    history: object


class Coreset(_Triple):
    """
    A weighted subset: a named tuple of three, with a number beside it.

    Attributes
    ----------
    indices : ndarray or Tensor of int64, shape (k,)
        Samples in order of selection, class after class where there are classes.
    weights : ndarray or Tensor of shape (k,)
        Their weights.
    history : ndarray or Tensor of shape (steps,)
        What the selection recorded in each step, class after class.
    n_effective : int
        Samples among them that the criterion had a use for; no part of the tuple.
    """

    def __new__(cls, indices, weights, history, n_effective):
        core = super().__new__(cls, indices, weights, history)
        core.n_effective = n_effective
        return core


def craig(
    G,
    k,
    *,
    y=None,
    metric="euclidean",
    method="greedy",
    eps=0.01,
    random_state=None,
):
    r"""
    CRAIG: the medoids of the gradients, weighted by how many they stand for.

    .. math:: \min_{\lvert S \rvert \le k} \sum_i \min_{j \in S} d_{ij}, \qquad
        \gamma_j = \#\{i : j \text{ is nearest to } i\}

    Parameters
    ----------
    G : Gradients, array-like or Tensor of shape (n, d)
        Gradients; for convex models also the points themselves.
    k : int
        Size of the coreset.
    y : array-like or Tensor of shape (n,), optional
        Labels. With them every class is served alone, in proportion to its size.
    metric : {"euclidean", "sqeuclidean"}, default="euclidean"
        The distance d, or its square.
    method : {"greedy", "stochastic", "partition"}, default="greedy"
        As for `facility_location`.
    eps : float, default=0.01
        As for `facility_location`.
    random_state : int, Generator, RandomState or None, default=None
        Source of samples and partitions.

    Returns
    -------
    Coreset
        Weights are counts and sum to n; history has the gains, what each sample took
        off the cost (the first one off that of the largest distance everywhere, or of
        twice the largest norm where not all distances are held, as with
        ``"partition"``); n_effective counts positive gains.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``k`` is out of range or below the number of classes, an entry is not
        finite, a choice is unknown, or all pairs of one class are too many for
        ``"greedy"``.

    Warns
    -----
    RuntimeWarning
        If fewer than k samples took something off the cost.

    Notes
    -----
    Greedy on :math:`F(S) = \sum_i \max_{j \in S} (d_{\max} - d_{ij})`, of which it
    attains a share of 1 - 1/e. A selected sample stands for itself, so that no weight
    is zero. Greedy holds the distances of all pairs of a class. The other methods hold
    them too where they take less than 0.85 GB, else those to a sample of candidates.

    References
    ----------
    .. [1] B. Mirzasoleiman, J. Bilmes and J. Leskovec, "Coresets for data-efficient
       training of machine learning models", ICML 2020, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import craig
    >>> core = craig(np.array([[0.0], [0.1], [0.2], [5.0], [5.1]]), 2)
    >>> core.indices, core.weights
    (array([2, 3]), array([3., 2.]))
    """
    original, G = _check_gradients(G)
    n = len(G)
    groups = _groups(n, k, y)
    check_choice("metric", metric, ("euclidean", "sqeuclidean"))
    check_choice("method", method, METHODS)
    check_eps(eps)
    rng = make_rng(random_state)
    indices, weights, gains, useful = [], [], [], 0
    for members, budget in groups:
        part = G[members]
        picks, added, counts = _medoids(part, budget, metric, method, eps, rng)
        # A distance below this is rounding of two equal gradients.
        scale = to_numpy(part[picks].sqnorm()).astype(np.float64)
        noise = 4 * np.sqrt(scale * _epsilon(G))
        useful += int((added > (noise if metric == "euclidean" else noise**2)).sum())
        indices.append(members[picks])
        weights.append(counts)
        gains.append(added)
    _warn_if_short(useful, k, "took something off the cost")
    return _coreset(indices, weights, gains, useful, original)


def _check_gradients(G):
    # An array of the kind that came in, and the gradients in numpy, or on a device.
    G = as_gradients(G)
    return G.layers[0][0], G._host()


def _epsilon(G):
    return 2.0**-23 if "32" in str(G.layers[0][0].dtype) else 2.0**-52


def _groups(n, k, y):
    # Pairs of members and budget: one, or one a class.
    check_integer("k", k)
    if k > n:
        raise ValueError(f"k must be at most the {n} samples, got {k}")
    if y is None:
        return [(np.arange(n), int(k))]
    y = check_labels(y, n)
    classes, inverse = np.unique(y, return_inverse=True)
    sizes = np.bincount(inverse)
    if k < len(classes):
        raise ValueError(f"k must be at least the {len(classes)} classes, got {k}")
    return [
        (np.flatnonzero(inverse == c), int(budget))
        for c, budget in enumerate(_budgets(sizes, int(k)))
    ]


def _budgets(sizes, k):
    # By largest remainders, at least one each.
    quota = k * sizes / sizes.sum()
    budgets = np.maximum(np.floor(quota).astype(np.int64), 1)
    while budgets.sum() < k:
        budgets[np.argmax(np.where(budgets < sizes, quota - budgets, -np.inf))] += 1
    while budgets.sum() > k:
        budgets[np.argmin(np.where(budgets > 1, quota - budgets, np.inf))] -= 1
    return budgets


def _medoids(G, k, metric, method, eps, rng):
    # Picks, gains and counts of one class.
    n = len(G)
    everything = np.arange(n)
    top = float(_power(4 * G.sqnorm().max(), metric))

    def select(points, weights, budget):
        part = G if len(points) == n else G[points]
        if _fits(len(points), G):
            D = _distances(part, part, metric)
            _zero(D, np.arange(len(points)), np.arange(len(points)))
            D *= -1
            D -= float(D.min())
            if method != "stochastic":
                return greedy(D, budget, weights, symmetric=True)

            def columns(c):
                return D[c]

        elif method == "greedy":
            raise ValueError(
                'method must be "stochastic" or "partition" (or y be given) where the '
                f"distances of {n} samples do not fit in memory, got {method!r}"
            )
        else:

            def columns(c):
                D = _distances(part[c], part, metric)
                _zero(D, np.arange(len(c)), c)
                return top - D

        m = len(points)
        return stochastic(columns, m, m, budget, eps, rng, weights)

    def count(points, picks):
        part, chosen = G[points], G[points[picks]]
        return nearest_counts(
            lambda rows: -_distances(part[rows], chosen, metric),
            len(points),
            len(picks),
            picks,
        )

    if method != "partition":
        picks, gains = select(everything, None, k)
    else:
        picks = greedi(
            n,
            k,
            rng,
            lambda points, weights, budget: points[select(points, weights, budget)[0]],
            lambda points, winners: count(points, np.searchsorted(points, winners)),
        )

        def column(j):
            D = _distances(G, G[[j]], metric)
            _zero(D, [j], [0])
            return top - D[:, 0]

        gains = gains_of(column, n, picks)
    return picks, gains, count(everything, picks)


def _fits(n, G):
    x = G.layers[0][0]
    size = x.element_size() if is_torch(x) else x.itemsize
    return n * n * size <= _LIMIT


def _distances(A, B, metric):
    D = A.gram(B)
    D *= -2
    D += A.sqnorm()[:, None]
    D += B.sqnorm()
    if is_torch(D):
        D.clamp_min_(0)
        return D if metric == "sqeuclidean" else D.sqrt_()
    np.maximum(D, 0, out=D)
    return D if metric == "sqeuclidean" else np.sqrt(D, out=D)


def _power(square, metric):
    return square if metric == "sqeuclidean" else square**0.5


def _zero(D, rows, columns):
    # The distance of a sample from itself, which rounding leaves positive.
    if is_torch(D):
        torch = sys.modules["torch"]
        rows, columns = (
            torch.as_tensor(np.asarray(i), device=D.device) for i in (rows, columns)
        )
    D[rows, columns] = 0


def _warn_if_short(useful, k, what):
    if useful < k:
        warnings.warn(
            f"only {useful} of the {k} selected samples {what}",
            RuntimeWarning,
            stacklevel=3,
        )


def _coreset(indices, weights, history, useful, like):
    return Coreset(
        as_index(np.concatenate(indices), like),
        as_kind(np.concatenate(weights).astype(np.float64), like),
        as_kind(np.concatenate(history).astype(np.float64), like),
        int(useful),
    )


def grad_match(
    G,
    k,
    *,
    y=None,
    lam=0.5,
    lam_relative=False,
    nonneg=True,
    target=None,
    tol=0.0,
    fill="random",
    random_state=None,
):
    r"""
    GRAD-MATCH: the weighted samples whose gradients add up to that of all.

    .. math:: E(S) = \min_{w \ge 0} \Bigl\lVert \sum_{j \in S} w_j g_j - b
        \Bigr\rVert^2 + \lambda \lVert w \rVert^2, \qquad b = \sum_i g_i

    Parameters
    ----------
    G : Gradients, array-like or Tensor of shape (n, d)
        Gradients.
    k : int
        Size of the coreset.
    y : array-like or Tensor of shape (n,), optional
        Labels. With them every class is matched alone, in proportion to its size.
    lam : float, default=0.5
        Weight of the penalty.
    lam_relative : bool, default=False
        Whether ``lam`` is in units of the mean squared norm of the gradients.
    nonneg : bool, default=True
        Whether weights must not be negative.
    target : Gradients, array-like or Tensor of shape (d,), optional
        The vector b, or gradients whose sum it is, such as held-out samples'. With
        ``y`` it must be gradients that know their labels.
    tol : float, default=0.0
        A class is done when E is at most this.
    fill : {"random", "none"}, default="random"
        Whether a selection that ends early is filled with random samples of weight 1,
        before all weights are scaled.
    random_state : int, Generator, RandomState or None, default=None
        Source of the samples that fill.

    Returns
    -------
    Coreset
        Weights are scaled to sum to n, or raw where they may be negative; history has
        E after each step; n_effective counts the samples that matching selected.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If a number is out of range, ``k`` is below the number of classes, an entry is
        not finite, a choice is unknown, or ``target`` does not fit.

    Warns
    -----
    RuntimeWarning
        If matching selected fewer than k samples.

    Notes
    -----
    Orthogonal matching pursuit, see `omp_nonneg`. The correlations come from the
    residual through the factors, in O(n d) a step without any pairs, or from the Gram
    matrix of a class where that is cheaper and fits. Scaling to the sum n changes the
    length of the matched vector: multiply by the sum that the raw weights had to get
    it back. The more d there are, the more atoms are of use: a vector of a cone in d
    dimensions needs at most d.

    References
    ----------
    .. [1] K. Killamsetty et al., "GRAD-MATCH: gradient matching based data subset
       selection for efficient deep model training", ICML 2021, equation 5 and
       Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import grad_match
    >>> G = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> core = grad_match(G, 2, lam=0.0)
    >>> core.indices, core.weights.round(3)
    (array([1, 2]), array([1.6, 2.4]))
    """
    original, G = _check_gradients(G)
    n = len(G)
    groups = _groups(n, k, y)
    check_real("lam", lam, allow_zero=True)
    check_real("tol", tol, allow_zero=True)
    check_choice("fill", fill, ("random", "none"))
    for name, value in (("lam_relative", lam_relative), ("nonneg", nonneg)):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be a bool, got {value!r}")
    targets = _targets(G, groups, y, target, original)
    rng = make_rng(random_state)
    indices, weights, history, useful = [], [], [], 0
    for (members, budget), b in zip(groups, targets, strict=True):
        part = G if len(members) == n else G[members]
        b = part._sum() if b is None else b
        penalty = float(lam)
        if lam_relative:
            penalty *= float(part.sqnorm().mean())
        atoms = _atoms(part, b, budget)
        picks, w, errors = pursue(atoms, budget, penalty, nonneg=nonneg, tol=tol)
        useful += len(picks)
        if fill == "random" and len(picks) < budget:
            rest = np.setdiff1d(np.arange(len(members)), picks)
            rest = rng.choice(rest, budget - len(picks), replace=False)
            picks, w = np.append(picks, rest), np.append(w, np.ones(len(rest)))
        indices.append(members[picks])
        weights.append(w)
        history.append(errors)
    if nonneg:
        total = sum(w.sum() for w in weights)
        weights = [w * (n / total) if total > 0 else w for w in weights]
    if useful < k:
        warnings.warn(
            f"matching selected only {useful} of {k} samples"
            + (", the others are random" if fill == "random" else ""),
            RuntimeWarning,
            stacklevel=2,
        )
    return _coreset(indices, weights, history, useful, original)


def _targets(G, groups, y, target, original):
    # One vector a group, in float64; None stands for the sum of its gradients.
    if target is None:
        return [None] * len(groups)
    if isinstance(target, Gradients):
        check_same_kind(original, target.layers[0][0], ("G", "target"))
        target = target._host()
        G._check_other(target)
        if y is None:
            return [target._sum()]
        if target.y is None:
            raise ValueError("target must have labels where y is given, got none")
        labels = to_numpy(target.y)
        wanted = np.unique(to_numpy(y))
        if set(wanted) - set(np.unique(labels)):
            raise ValueError(
                f"target must have samples of all classes {wanted.tolist()}, got "
                f"{np.unique(labels).tolist()}"
            )
        return [target[np.flatnonzero(labels == c)]._sum() for c in wanted]
    if y is not None:
        raise ValueError(
            "target must be Gradients with labels where y is given, got a vector"
        )
    b = as_float_array(target, "target", ndim=(1, 2)).reshape(-1)
    check_same_kind(original, b, ("G", "target"))
    if is_torch(b) and b.device.type == "cpu":
        b = to_numpy(b)
    if len(b) != G.dim:
        raise ValueError(f"target must have {G.dim} entries, got {len(b)}")
    return [b.double() if is_torch(b) else b.astype(np.float64)]


def _atoms(G, b, k):
    # Operations a sample: of k products with a residual, or of all pairs.
    n = len(G)
    ranks = sum(sum(shape) for shape in G._shapes())
    if 8 * n * n > _LIMIT or k * G.dim <= n * ranks + k * k / 2:
        return OnGradients(G, b)
    G = G._map(lambda x: x.double() if is_torch(x) else x.astype(np.float64))
    return OnGram(G.gram(), G.dot(b), float(b @ b))


def glister(G, k, *, val, eta, method="online", rounds=15, eps=0.01, random_state=None):
    r"""
    GLISTER: the samples whose gradient step lowers the loss on held-out ones most.

    .. math:: \max_{\lvert S \rvert \le k} -L_V\Bigl(\theta - \eta \sum_{i \in S} g_i
        \Bigr), \qquad \text{gain}(e \mid S) \approx \eta\, g_e^\top \nabla
        L_V\Bigl(\theta - \eta \sum_{i \in S} g_i\Bigr)

    Parameters
    ----------
    G : Gradients
        Gradients of the last layer.
    k : int
        Size of the coreset.
    val : Gradients
        Gradients of held-out samples in the same layer, from `last_layer_gradients`.
    eta : float
        Step size of the sum of gradients. It decides what is selected: with a small
        one the moved point stays where it was.
    method : {"online", "rgreedy", "stochastic", "modular"}, default="online"
        How often the loss is looked at again: after each sample; after k / rounds;
        after each sample, but only a random part of the others can be selected; never,
        which sorts by the first gains.
    rounds : int, default=15
        Looks of ``"rgreedy"``.
    eps : float, default=0.01
        ``"stochastic"`` looks at about (n / k) log(1 / eps) samples.
    random_state : int, Generator, RandomState or None, default=None
        Source of these samples.

    Returns
    -------
    Coreset
        Weights are 1; history has the mean loss on held-out samples before the first
        and after each look; n_effective counts positive gains.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If a number is out of range, the method is unknown, ``G`` is not of one layer,
        or ``val`` does not know its logits and labels or is of another layer.

    Warns
    -----
    RuntimeWarning
        If fewer than k samples had a positive gain.

    Notes
    -----
    A step in the last layer moves the held-out logits by :math:`-\eta\,
    (\tilde h_v^\top \tilde h_e)\, p_e`, so that a look costs O((n + n_v) C D) and
    nothing is approximated but the gain of one sample. L is the mean over held-out
    samples. ``"modular"`` is what greed on the linearised objective is: a sort.

    References
    ----------
    .. [1] K. Killamsetty, D. Sivasubramanian, G. Ramakrishnan and R. Iyer, "GLISTER:
       generalization based data subset selection for efficient and robust learning",
       AAAI 2021, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import glister, last_layer_gradients
    >>> h, y = np.array([[1.0], [1.1], [-1.0], [-0.9]]), np.array([0, 0, 1, 0])
    >>> G = last_layer_gradients(np.zeros((4, 2)), y, h)
    >>> glister(G, 2, val=G[:3], eta=1.0).indices
    array([1, 2])
    """
    if not isinstance(G, Gradients) or not isinstance(val, Gradients):
        raise TypeError(
            "G and val must be Gradients, got "
            f"{type(G).__name__} and {type(val).__name__}"
        )
    original, G = _check_gradients(G)
    check_same_kind(original, val.layers[0][0], ("G", "val"))
    val = val._host()
    if len(G.layers) != 1:
        raise ValueError(f"G must be of one layer, got {len(G.layers)}")
    G._check_other(val)
    if val.logits is None or val.y is None:
        raise ValueError("val must know its logits and labels, got gradients alone")
    n = len(G)
    ((_, k),) = _groups(n, k, None)
    check_real("eta", eta)
    check_choice("method", method, ("online", "rgreedy", "stochastic", "modular"))
    check_integer("rounds", rounds)
    check_eps(eps)
    rng = make_rng(random_state)
    looks = {"rgreedy": min(rounds, k), "modular": 1}.get(method, k)
    sizes = [len(part) for part in np.array_split(np.arange(k), looks)]
    sample = min(n, int(np.ceil(n / k * np.log(1 / eps))))
    held_out = _HeldOut(val, eta)
    history = [held_out.loss()]
    free = np.ones(n, dtype=bool)
    columns = _columns(G)
    indices, useful = [], 0
    for size in sizes:
        V = held_out.gradient()
        if method == "stochastic":
            left = np.flatnonzero(free)
            left = np.sort(rng.choice(left, min(sample, len(left)), replace=False))
            gains = np.full(n, -np.inf)
            gains[left] = to_numpy(G[left].dot(V))
        else:
            gains = to_numpy(_products(V, *columns)).copy()
            gains[~free] = -np.inf
        # A stable sort: ties go to the lower index.
        picks = (
            np.array([gains.argmax()])
            if size == 1
            else np.argsort(-gains, kind="stable")[:size]
        )
        useful += int((gains[picks] > 0).sum())
        free[picks] = False
        indices.append(picks)
        held_out.step(G[picks])
        history.append(held_out.loss())
    _warn_if_short(useful, k, "had a positive gain")
    return _coreset(indices, [np.ones(k)], [history], useful, original)


# Factors with one sample a column: many products with one vector are faster so.
def _columns(G):
    return [
        None if x is None else x.T.contiguous() if is_torch(x) else x.T.copy()
        for x in G.layers[0]
    ]


def _products(V, left, right):
    if right is None:
        return V @ left
    einsum = sys.modules["torch"].einsum if is_torch(V) else np.einsum
    return einsum("cn,cn->n", V @ right, left)


class _HeldOut:
    # Held-out samples at a last layer that moves.

    def __init__(self, val, eta):
        P, self.H = val.layers[0]
        self.eta, self.n = eta, len(val)
        labels = to_numpy(val.y).astype(np.int64)
        if is_torch(P):
            labels = sys.modules["torch"].as_tensor(labels, device=P.device)
        self.labels = labels
        self.rows = np.arange(self.n)
        self.Z = val.logits + 0  # a copy

    # Probabilities, and the logarithms of the true classes' ones.
    def _softmax(self):
        Z = self.Z
        top = Z.max(1)
        shifted = Z - (top.values if is_torch(Z) else top)[:, None]
        E = sys.modules["torch"].exp(shifted) if is_torch(Z) else np.exp(shifted)
        total = E.sum(1)
        log = sys.modules["torch"].log(total) if is_torch(Z) else np.log(total)
        return E / total[:, None], shifted[self.rows, self.labels] - log

    def loss(self):
        self.P, log = self._softmax()
        return -float(log.mean())

    def gradient(self):
        P = self.P
        P[self.rows, self.labels] -= 1
        total = P.sum(0) if self.H is None else P.T @ self.H
        return total / self.n

    def step(self, part):
        P, H = part.layers[0]
        if H is None:
            self.Z = self.Z - self.eta * P.sum(0)
        else:
            self.Z = self.Z - self.eta * (self.H @ (H.T @ P))


def glister_weighted(G, k, *, y=None, metric="inner"):
    r"""
    Weighted GLISTER: facility location on the inner products of gradients.

    .. math:: \max_{\lvert S \rvert \le k} \sum_i \max_{j \in S} s_{ij}, \qquad
        s_{ij} = \langle g_i, g_j \rangle, \qquad
        w_j = \#\Bigl\{i : j \in \arg\max_{l \in S} s_{il}\Bigr\}

    Parameters
    ----------
    G : Gradients, array-like or Tensor of shape (n, d)
        Gradients.
    k : int
        Size of the coreset.
    y : array-like or Tensor of shape (n,), optional
        Labels. With them every class is served alone, in proportion to its size.
    metric : {"inner", "cosine"}, default="inner"
        ``"inner"`` as above; ``"cosine"`` divides by the norms, so that long gradients
        do not attract all others. The cosine with a zero gradient is 0.

    Returns
    -------
    Coreset
        Weights are counts and sum to n, and may be zero; history has the gains;
        n_effective counts positive weights.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``k`` is out of range or below the number of classes, an entry is not
        finite, the metric is unknown, or all pairs of one class do not fit in memory.

    Warns
    -----
    RuntimeWarning
        If fewer than k weights are positive.

    Notes
    -----
    With features that are not negative, two samples of one class have gradients of the
    last layer with a non-negative inner product. Where one is negative, the smallest
    is subtracted from all. Even with S everything, a sample need not stand for itself:
    longer gradients nearby have larger inner products with it.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import glister_weighted
    >>> G = np.array([[1.0, 0.1], [5.0, 0.0], [0.1, 1.0], [0.0, 1.0]])
    >>> core = glister_weighted(G, 2)
    >>> core.indices, core.weights
    (array([1, 2]), array([2., 2.]))
    """
    original, G = _check_gradients(G)
    n = len(G)
    groups = _groups(n, k, y)
    check_choice("metric", metric, ("inner", "cosine"))
    indices, weights, history = [], [], []
    for members, budget in groups:
        part = G[members]
        if not _fits(len(members), part):
            raise ValueError(
                "y must be given where the inner products of all pairs do not fit in "
                f"memory, got {len(members)} samples in one class"
            )
        S = part.gram()
        if metric == "cosine":
            size = part.sqnorm() ** 0.5
            size = size + (size == 0)
            S /= size[:, None]
            S /= size
        lowest = float(S.min())
        if lowest < 0:
            S -= lowest
        picks, gains = greedy(S, budget, symmetric=True)
        indices.append(members[picks])
        history.append(gains)
        weights.append(nearest_counts(_picker(S, picks), len(members), budget))
    useful = int((np.concatenate(weights) > 0).sum())
    _warn_if_short(useful, k, "have a positive weight")
    return _coreset(indices, weights, history, useful, original)


def _picker(S, picks):
    columns = as_index(picks, S)
    return lambda rows: S[rows][:, columns]


def k_center_greedy(X, k):
    r"""
    Farthest-point traversal: samples that leave none far away.

    .. math:: j_{t+1} \in \arg\max_i \min_{j \in S_t} \lVert x_i - x_j \rVert

    Parameters
    ----------
    X : array-like, Tensor of shape (n, d) or Gradients
        Features.
    k : int
        Size of the coreset.

    Returns
    -------
    Coreset
        Weights are n / k; history has the largest distance from the subset after each
        sample; n_effective counts samples that were away from those before.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``k`` is out of range or an entry is not finite.

    Warns
    -----
    RuntimeWarning
        If there are fewer than k distinct samples.

    Notes
    -----
    The first sample is the one nearest to the mean. The largest distance is at most
    twice the least possible one. O(n d) operations a sample, O(n) numbers.

    References
    ----------
    .. [1] T. Gonzalez, "Clustering to minimize the maximum intercluster distance",
       1985.
    .. [2] O. Sener and S. Savarese, "Active learning for convolutional neural networks:
       a core-set approach", ICLR 2018, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import k_center_greedy
    >>> k_center_greedy(np.array([[0.0], [1.0], [2.0], [9.0]]), 3).indices
    array([2, 3, 0])
    """
    original, G = _check_gradients(X)
    n = len(G)
    ((_, k),) = _groups(n, k, None)
    norms = G.sqnorm()
    # Distances from the mean up to a constant.
    least = norms - 2 * G.dot(G._sum() / n)
    j = int(least.argmin())
    indices, radii, useful = [], [], 1
    noise = 16 * _epsilon(G)
    nearest = None
    for t in range(k):
        if t:
            j = int(nearest.argmax())
            useful += bool(nearest[j] > noise * norms[j])
        square = norms - 2 * G.gram(G[[j]])[:, 0] + norms[j]
        square = square.clip(0)
        if nearest is None:
            nearest = square
        elif is_torch(square):
            nearest = sys.modules["torch"].minimum(nearest, square)
        else:
            nearest = np.minimum(nearest, square)
        # Below the others: a sample is selected once even where all are equal.
        nearest[j] = -1.0
        indices.append(j)
        radii.append(max(float(nearest.max()), 0.0) ** 0.5)
    _warn_if_short(useful, k, "were away from those before")
    return _coreset([indices], [np.full(k, n / k)], [radii], useful, original)


def random_coreset(n, k, *, random_state=None):
    r"""
    Random samples without replacement, all of one weight.

    .. math:: \mathbb E \sum_{j \in S} \frac nk\, g_j = \sum_i g_i

    Parameters
    ----------
    n : int
        Number of samples.
    k : int
        Size of the coreset.
    random_state : int, Generator, RandomState or None, default=None
        Source of the samples.

    Returns
    -------
    Coreset
        Indices in random order, weights n / k, an empty history.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``k`` is out of range.

    Examples
    --------
    >>> from lib.coresets import random_coreset
    >>> core = random_coreset(100, 4, random_state=0)
    >>> len(core.indices), core.weights
    (4, array([25., 25., 25., 25.]))
    """
    check_integer("n", n)
    ((_, k),) = _groups(n, k, None)
    indices = make_rng(random_state).choice(n, k, replace=False)
    return Coreset(indices, np.full(k, n / k), np.zeros(0), k)
