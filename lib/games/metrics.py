r"""
Measuring generated samples: scores from class probabilities and from features.

No score alone is safe. The inception score rewards confident garbage of many classes,
precision is perfect for a single good image, distances of features depend on the
number of samples: report several, with recall or coverage among them.

Everything is computed in float64 on the CPU; samples and features may be numpy arrays
or tensors of any device. Results are floats.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    is_torch,
    make_rng,
    row_blocks,
    to_numpy,
)

__all__ = [
    "PRDC",
    "ClassifierScorer",
    "fid",
    "inception_score",
    "inception_v3",
    "kid",
    "mode_coverage",
    "nearest_mode",
    "prdc",
]

#: Rows of a distance matrix that exist at once.
ROWS = 1024


def inception_score(p, model=None, *, splits=10, random_state=0):
    r"""
    Score class probabilities: confident on each sample, diverse over all.

    .. math:: \exp \frac1n \sum_i \sum_y p(y|x_i) \log \frac{p(y|x_i)}{p(y)},
        \qquad p(y) = \frac1n \sum_i p(y|x_i),

    between 1 (nothing, or one class only) and the number of classes.

    Parameters
    ----------
    p : array-like or Tensor of shape (n, K)
        Class probabilities, or samples where there is a ``model``.
    model : object, optional
        Classifier with ``predict_proba``, such as :class:`ClassifierScorer`.
    splits : int, default=10
        Parts of the samples that are scored apart.
    random_state : int, Generator, SeedSequence, RandomState or None, default=0
        Order in which samples are dealt to the parts: those of a sorted data set would
        see one class each and score 1.

    Returns
    -------
    mean, std : float
        Over the parts. The spread between parts says nothing about that between
        trainings; for the latter train again.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If rows are no probabilities, or fewer than ``splits``.

    Notes
    -----
    O(n K). A part of m samples is biased downwards, by about (K - 1) / (2 m) of the
    logarithm.

    References
    ----------
    .. [1] T. Salimans et al., "Improved techniques for training GANs", NeurIPS 2016,
       Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.games import inception_score
    >>> mean, _ = inception_score(np.eye(10), splits=1)
    >>> round(mean, 6)
    10.0
    """
    if model is not None:
        p = model.predict_proba(p)
    p = to_numpy(as_float_array(p, "p")).astype(np.float64)
    check_integer("splits", splits)
    if len(p) < splits:
        raise ValueError(f"p must have at least splits={splits} rows, got {len(p)}")
    total = p.sum(axis=1)
    if p.min() < 0 or abs(total - 1).max() > 1e-3:
        raise ValueError(
            "rows of p must be probabilities, nonnegative with sum 1, got values from "
            f"{p.min():g} and sums from {total.min():g} to {total.max():g}"
        )
    from scipy.special import rel_entr

    p = p[make_rng(random_state).permutation(len(p))] / total.mean()
    scores = [
        np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean())
        for part in np.array_split(p, splits)
    ]
    return float(np.mean(scores)), float(np.std(scores))


def fid(real, fake):
    r"""
    Give the Frechet distance between two clouds of features, squared.

    .. math:: \|\mu_1 - \mu_2\|^2
        + \mathrm{tr} \big( C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2} \big),

    the squared Wasserstein-2 distance of normal distributions with the two means and
    covariances.

    Parameters
    ----------
    real : array-like or Tensor of shape (n, d)
        Features of real samples.
    fake : array-like or Tensor of shape (m, d)
        Features of generated samples.

    Returns
    -------
    float
        The distance, at least 0.

    Raises
    ------
    TypeError
        If a dtype is not allowed.
    ValueError
        If the features are not finite, of different widths, or fewer than two.

    Warns
    -----
    UserWarning
        If there are no more samples than features: then a covariance has no full rank,
        and the distance is mostly bias.

    Notes
    -----
    O((n + m) d^2 + d^3). The matrix under the root is symmetric, so that eigenvalues
    are real; those below zero by rounding are set to it. The distance is biased
    upwards by a multiple of 1/n and 1/m: compare only numbers from equal n.

    References
    ----------
    .. [1] M. Heusel et al., "GANs trained by a two time-scale update rule converge to
       a local Nash equilibrium", NeurIPS 2017, equation 6.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.games import fid
    >>> x = np.random.default_rng(0).standard_normal((100, 3))
    >>> round(fid(x, x + 2), 6)
    12.0
    """
    real, fake = _features(real, fake)
    if min(len(real), len(fake)) <= real.shape[1]:
        warnings.warn(
            f"fid of {len(real)} and {len(fake)} samples with {real.shape[1]} features "
            "is mostly bias: take many more samples than features",
            stacklevel=2,
        )
    c1, c2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (real, fake))
    values, vectors = np.linalg.eigh(c1)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    inner = root @ c2 @ root
    # the average with the transpose is symmetric to the last digit
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None))
    shift = real.mean(axis=0) - fake.mean(axis=0)
    distance = shift @ shift + np.trace(c1) + np.trace(c2) - 2 * overlap.sum()
    return max(0.0, float(distance))


def kid(real, fake, *, degree=3):
    r"""
    Estimate the squared maximum mean discrepancy of features, without bias.

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j)}{n (n-1)}
        + \frac{\sum_{i \ne j} k(y_i, y_j)}{m (m-1)}
        - \frac{2}{nm} \sum_{i, j} k(x_i, y_j),
        \qquad k(x, y) = (x^\top y / d + 1)^3 .

    Parameters
    ----------
    real : array-like or Tensor of shape (n, d)
        Features of real samples.
    fake : array-like or Tensor of shape (m, d)
        Features of generated samples.
    degree : int, default=3
        Degree of the kernel.

    Returns
    -------
    float
        The estimate; below zero about as often as above where the distributions agree.

    Raises
    ------
    TypeError
        If a dtype is not allowed or the degree is no integer.
    ValueError
        If the features are not finite, of different widths, or fewer than two.

    Notes
    -----
    O((n + m)^2 d) time, without the matrix in memory. The kernel knows the scale of the
    features: with a root mean square far above one its cube is all variance. Those of
    :class:`ClassifierScorer` are scaled to one.

    References
    ----------
    .. [1] M. Binkowski et al., "Demystifying MMD GANs", ICLR 2018, Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.games import kid
    >>> x = np.random.default_rng(0).standard_normal((2000, 3))
    >>> abs(kid(x[:1000], x[1000:])) < 0.1 < kid(x[:1000], x[1000:] + 1)
    True
    """
    real, fake = _features(real, fake)
    check_integer("degree", degree)

    def total(x, y):
        d = x.shape[1]
        return sum(
            np.sum((x[rows] @ y.T / d + 1) ** degree)
            for rows in row_blocks(len(x), ROWS)
        )

    def diagonal(x):
        return np.sum((np.einsum("ij,ij->i", x, x) / x.shape[1] + 1) ** degree)

    n, m = len(real), len(fake)
    within = (total(real, real) - diagonal(real)) / (n * (n - 1))
    within += (total(fake, fake) - diagonal(fake)) / (m * (m - 1))
    return float(within - 2 * total(real, fake) / (n * m))


class PRDC(NamedTuple):
    """Fidelity and diversity apart: the four numbers that :func:`prdc` returns."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real, fake, k=5):
    r"""
    Give precision, recall, density and coverage by nearest neighbours.

    With :math:`B(x)` the open ball around :math:`x` to its k-th nearest neighbour of
    its own kind,

    .. math::
        \text{precision} &= \frac1m \sum_j 1[y_j \in \cup_i B(x_i)], \qquad
        \text{recall} = \frac1n \sum_i 1[x_i \in \cup_j B(y_j)], \\
        \text{density} &= \frac1{km} \sum_{i,j} 1[y_j \in B(x_i)], \qquad
        \text{coverage} = \frac1n \sum_i 1[\exists j: y_j \in B(x_i)] .

    Parameters
    ----------
    real : array-like or Tensor of shape (n, d)
        Features of real samples.
    fake : array-like or Tensor of shape (m, d)
        Features of generated samples.
    k : int, default=5
        Which neighbour.

    Returns
    -------
    PRDC
        Named tuple of four floats.

    Raises
    ------
    TypeError
        If a dtype is not allowed or k is no integer.
    ValueError
        If the features are not finite, of different widths, or not more than k.

    Notes
    -----
    O((n + m)^2 d) time, without the matrix in memory. Precision alone is worth
    nothing: copies of one good sample have precision 1, and recall 0.

    References
    ----------
    .. [1] T. Kynkaanniemi et al., "Improved precision and recall metric for assessing
       generative models", NeurIPS 2019, equation 1.
    .. [2] M. F. Naeem et al., "Reliable fidelity and diversity metrics for generative
       models", ICML 2020, equations 3 and 5.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.games import prdc
    >>> x = np.random.default_rng(0).standard_normal((200, 2))
    >>> print(prdc(x, np.zeros((200, 2))))  # one point, in the middle
    PRDC(precision=1.0, recall=0.0, density=1.0, coverage=0.025)
    """
    real, fake = _features(real, fake)
    check_integer("k", k)
    if min(len(real), len(fake)) <= k:
        raise ValueError(
            f"real and fake must have more than k={k} rows, "
            f"got {len(real)} and {len(fake)}"
        )
    radius_real, radius_fake = (_neighbour_distance(x, k) for x in (real, fake))
    near_real = np.zeros(len(fake), dtype=int)
    near_fake = np.zeros(len(real), dtype=bool)
    covered = np.zeros(len(real), dtype=bool)
    for rows in row_blocks(len(real), ROWS):
        distance = _distances(real[rows], fake)
        inside = distance < radius_real[rows, None]
        near_real += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        near_fake[rows] = (distance < radius_fake).any(axis=1)
    return PRDC(
        float(np.mean(near_real > 0)),
        float(near_fake.mean()),
        float(near_real.mean() / k),
        float(covered.mean()),
    )


def nearest_mode(x, centers, radius):
    r"""
    Assign points to the nearest centre, if it is near enough.

    Parameters
    ----------
    x : array-like or Tensor of shape (n, d)
        Points.
    centers : array-like or Tensor of shape (K, d)
        Centres of the modes.
    radius : float
        Largest distance to a centre.

    Returns
    -------
    ndarray of int of shape (n,)
        Number of the mode, -1 for points near none.

    Raises
    ------
    TypeError
        If a dtype is not allowed.
    ValueError
        If arrays are not finite, widths differ, or the radius is not positive.

    See Also
    --------
    mode_coverage : Counts the modes.

    Notes
    -----
    O(n K d).

    Examples
    --------
    >>> from lib.games import nearest_mode
    >>> nearest_mode([[0.1], [0.9], [5.0]], [[0.0], [1.0]], radius=0.5)
    array([ 0,  1, -1])
    """
    x, centers = (
        to_numpy(as_float_array(a, name)).astype(np.float64)
        for a, name in ((x, "x"), (centers, "centers"))
    )
    check_real("radius", radius)
    if x.shape[1] != centers.shape[1]:
        raise ValueError(
            f"centers must have the {x.shape[1]} columns of x, got {centers.shape[1]}"
        )
    distance = _distances(x, centers)
    return np.where(distance.min(axis=1) <= radius, distance.argmin(axis=1), -1)


def mode_coverage(labels, n_modes, *, min_share=0.1):
    r"""
    Count the modes that generated samples reach.

    A mode counts if it has at least ``min_share`` times the :math:`n / K` samples of an
    even distribution over :math:`K` modes.

    Parameters
    ----------
    labels : array-like or Tensor of int of shape (n,)
        Mode of every sample, -1 for none: from :func:`nearest_mode`, or the predicted
        class.
    n_modes : int
        Number K of modes.
    min_share : float, default=0.1
        Share of an even part that is needed.

    Returns
    -------
    int
        Number of modes covered.

    Raises
    ------
    TypeError
        If labels or the number are no integers.
    ValueError
        If a label is not in -1, ..., K - 1, there are none, or the share is not
        positive.

    Notes
    -----
    O(n). The quality of the samples is another matter: the share of labels that are not
    -1.

    Examples
    --------
    >>> from lib.games import mode_coverage
    >>> mode_coverage([0, 0, 0, 1, 1, -1], n_modes=3)
    2
    """
    labels = to_numpy(labels)
    check_integer("n_modes", n_modes)
    check_real("min_share", min_share)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels must be 1-D and not empty, got shape {labels.shape}")
    if labels.min() < -1 or labels.max() >= n_modes:
        raise ValueError(
            f"labels must lie in -1, ..., {n_modes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    counts = np.bincount(labels[labels >= 0], minlength=n_modes)
    return int(np.sum(counts >= min_share * labels.size / n_modes))


class ClassifierScorer:
    r"""
    A small classifier whose probabilities and features score generated images.

    What an Inception network is to photographs this is to digits and clothes: its class
    probabilities give the inception score, the activations before its last layer the
    distances. It is trained in seconds.

    Parameters
    ----------
    network : {"mlp", "cnn"}, default="mlp"
        A perceptron with one hidden layer before the features, for small images, or two
        convolutions (3 x 3, 32 and 64 maps, halved by maximum) before them.
    n_features : int, default=32
        Width of the feature layer.
    epochs : int, default=30
        Passes through the training data.
    lr : float, default=3e-3
        Step size of Adam; it falls linearly to 0.
    batch_size : int, default=32
        Images a step.
    device : str, default="cpu"
        Where the network lives.
    generator : torch.Generator, int or None, default=None
        Source of weights and batches; None takes fresh entropy, never torch's global
        state.

    Attributes
    ----------
    classes_ : int
        Number of classes.
    network_ : torch.nn.Sequential
        Feature network and last layer.
    scale_ : float
        Root mean square of the features on the training data, by which they are
        divided.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range.

    Notes
    -----
    The network has the dtype of its training data: float64 on one thread is
    deterministic. Features are scaled to root mean square one on the training data, as
    :func:`kid` needs.

    References
    ----------
    .. [1] S. Barratt and R. Sharma, "A note on the inception score", 2018: why a
       classifier of the data at hand.

    Examples
    --------
    >>> from lib import data
    >>> from lib.games import ClassifierScorer
    >>> X, y = data.load("digits")
    >>> scorer = ClassifierScorer(epochs=5, generator=0).fit(2 * X - 1, y)
    >>> X_test, y_test = data.load("digits", "test")
    >>> scorer.score(2 * X_test - 1, y_test) > 0.9
    True
    """

    def __init__(
        self,
        network="mlp",
        *,
        n_features=32,
        epochs=30,
        lr=3e-3,
        batch_size=32,
        device="cpu",
        generator=None,
    ):
        check_choice("network", network, ("mlp", "cnn"))
        for name, value in (
            ("n_features", n_features),
            ("epochs", epochs),
            ("batch_size", batch_size),
        ):
            check_integer(name, value)
        check_real("lr", lr)
        self.network, self.n_features, self.epochs = network, n_features, epochs
        self.lr, self.batch_size, self.device = lr, batch_size, device
        self.generator = generator

    def fit(self, x, y):
        """
        Train on labelled images.

        Parameters
        ----------
        x : array-like or Tensor of shape (n, channels, height, width)
            Images, scaled as the generated ones will be.
        y : array-like or Tensor of int of shape (n,)
            Classes 0, 1, ...

        Returns
        -------
        self : ClassifierScorer
            The trained scorer.

        Raises
        ------
        TypeError
            If labels are no integers or a dtype is not allowed.
        ValueError
            If images are not finite and 4-D, or labels do not fit them.
        """
        import torch
        from torch.nn.functional import cross_entropy

        from lib.games.models import _as_generator

        x = torch.as_tensor(as_float_array(x, "x", ndim=4)).to(self.device)
        labels = to_numpy(y)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"y must hold integers, got {labels.dtype}")
        if labels.shape != (len(x),) or labels.min(initial=0) < 0:
            raise ValueError(
                f"y must hold {len(x)} classes >= 0, one an image, "
                f"got shape {labels.shape}"
            )
        y = torch.from_numpy(labels.astype(np.int64)).to(self.device)
        self.classes_ = int(y.max()) + 1
        generator = _as_generator(self.generator)
        self._shape = tuple(x.shape[1:])
        self.network_ = self._build(generator).to(x)
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        opt = torch.optim.Adam(self.network_.parameters(), lr=self.lr)
        batch = min(self.batch_size, len(x))
        steps = self.epochs * (len(x) // batch)
        decay = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.0, max(1, steps))
        for _ in range(self.epochs):
            order = torch.from_numpy(rng.permutation(len(x))).to(self.device)
            for rows in order[: len(x) // batch * batch].split(batch):
                loss = cross_entropy(self.network_(x[rows]), y[rows])
                opt.zero_grad()
                loss.backward()
                opt.step()
                decay.step()
        self.scale_ = 1.0
        features = to_numpy(self.features(x)).astype(np.float64)
        # features that are all zero need no scale
        self.scale_ = float(np.sqrt(np.mean(features**2))) or 1.0
        return self

    def predict_proba(self, x):
        """
        Give class probabilities.

        Parameters
        ----------
        x : array-like or Tensor of shape (n, channels, height, width)
            Images.

        Returns
        -------
        ndarray or Tensor of shape (n, K)
            Probabilities, of the kind and device of ``x``.

        Raises
        ------
        ValueError
            If images are not finite, or of another shape than in training.
        """
        return self._apply(x, lambda part: self.network_(part).softmax(dim=1))

    def features(self, x):
        """
        Give the activations before the last layer, scaled.

        Parameters
        ----------
        x : array-like or Tensor of shape (n, channels, height, width)
            Images.

        Returns
        -------
        ndarray or Tensor of shape (n, n_features)
            Features, of the kind and device of ``x``.

        Raises
        ------
        ValueError
            If images are not finite, or of another shape than in training.
        """
        return self._apply(x, lambda part: self.network_[:-1](part) / self.scale_)

    def score(self, x, y):
        """
        Give the share of images whose class is found.

        Parameters
        ----------
        x : array-like or Tensor of shape (n, channels, height, width)
            Images.
        y : array-like or Tensor of int of shape (n,)
            Their classes.

        Returns
        -------
        float
            Accuracy.
        """
        found = to_numpy(self.predict_proba(x)).argmax(axis=1)
        return float(np.mean(found == to_numpy(y)))

    def save(self, path):
        """
        Write the trained scorer to a file.

        Parameters
        ----------
        path : str or Path
            The file.
        """
        import torch

        options = {
            name: getattr(self, name)
            for name in ("network", "n_features", "epochs", "lr", "batch_size")
        }
        state = {"options": options, "weights": self.network_.state_dict()}
        state |= {"shape": self._shape, "classes": self.classes_, "scale": self.scale_}
        torch.save(state, path)

    @classmethod
    def load(cls, path, *, device="cpu"):
        """
        Read a scorer from a file.

        Parameters
        ----------
        path : str or Path
            What :meth:`save` wrote.
        device : str, default="cpu"
            Where the network will live.

        Returns
        -------
        ClassifierScorer
            A trained scorer, with the same outputs.
        """
        import torch

        from lib.games.models import _as_generator

        state = torch.load(path, map_location=device, weights_only=True)
        scorer = cls(device=device, **state["options"])
        scorer._shape, scorer.classes_ = tuple(state["shape"]), state["classes"]
        scorer.scale_ = state["scale"]
        first = next(iter(state["weights"].values()))
        scorer.network_ = scorer._build(_as_generator(0)).to(first)
        scorer.network_.load_state_dict(state["weights"])
        return scorer

    # The last layer makes classes of features.
    def _build(self, generator):
        from torch import nn

        from lib.games.models import _layer

        channels, height, width = self._shape
        if self.network == "mlp":
            hidden = 4 * self.n_features
            size = channels * height * width
            layers = [
                nn.Flatten(),
                _layer(nn.Linear, size, hidden, generator=generator),
            ]
            layers.append(nn.ReLU())
        else:
            layers, hidden = [], 64 * (height // 4) * (width // 4)
            for sizes in ((channels, 32), (32, 64)):
                conv = _layer(nn.Conv2d, *sizes, 3, padding=1, generator=generator)
                layers += [conv, nn.ReLU(), nn.MaxPool2d(2)]
            layers.append(nn.Flatten())
        for sizes in ((hidden, self.n_features), (self.n_features, self.classes_)):
            layers += [_layer(nn.Linear, *sizes, generator=generator), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def _apply(self, x, function):
        import torch

        if not hasattr(self, "network_"):
            raise ValueError("the scorer must be fitted or loaded first")
        x = as_float_array(x, "x", ndim=4)
        if tuple(x.shape[1:]) != self._shape:
            raise ValueError(
                f"images in x must have the shape {self._shape} of the training data, "
                f"got {tuple(x.shape[1:])}"
            )
        weight = next(self.network_.parameters())
        parts = torch.as_tensor(x).split(ROWS)
        with torch.no_grad():
            out = torch.cat([function(part.to(weight)) for part in parts])
        return out.to(x.device) if is_torch(x) else to_numpy(out)


def inception_v3(path=None, *, device="cpu"):
    r"""
    Load torchvision's Inception v3 as a scorer, if its weights lie on this machine.

    Nothing is downloaded. Scores from these weights are not those of the original
    TensorFlow network, and on digits they say little: prefer
    :class:`ClassifierScorer`.

    Parameters
    ----------
    path : str or Path, optional
        The file of weights; by default where torchvision itself would keep it, in
        ``checkpoints`` of ``torch.hub.get_dir()``.
    device : str, default="cpu"
        Where the network lives.

    Returns
    -------
    object
        With ``predict_proba`` (1,000 classes) and ``features`` (2,048) of images in
        [-1, 1] with one or three channels and any size.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    Images are enlarged to 299 x 299 pixels, about 6 billion multiplications each.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception architecture for computer
       vision", CVPR 2016.

    Examples
    --------
    >>> from lib.games import inception_v3
    >>> scorer = inception_v3("no/such/file.pth")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no weights of Inception v3 at no/such/file.pth
    """
    import torch

    if path is None:
        name = "inception_v3_google-0cc3c7bd.pth"
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights of Inception v3 at {path}")
    return _Inception(torch.load(path, map_location=device, weights_only=True), device)


class _Inception:
    def __init__(self, weights, device):
        from torchvision.models import inception_v3

        # The weights were trained on images in [-1, 1]; transform_input would expect
        # another scale.
        network = inception_v3(weights=None, init_weights=False, transform_input=False)
        network.load_state_dict(weights)
        self.network = network.eval().to(device)

    def predict_proba(self, x):
        return self._apply(x, lambda part: self.network(part).softmax(dim=1))

    def features(self, x):
        head, self.network.fc = self.network.fc, _identity()
        try:
            return self._apply(x, self.network)
        finally:
            self.network.fc = head

    def _apply(self, x, function):
        import torch
        from torch.nn.functional import interpolate

        x = as_float_array(x, "x", ndim=4)
        if x.shape[1] not in (1, 3) or abs(x).max() > 1:
            raise ValueError(
                "x must hold images in [-1, 1] with 1 or 3 channels, got shape "
                f"{tuple(x.shape)} and values up to {float(abs(x).max()):g}"
            )
        weight, out = next(self.network.parameters()), []
        with torch.no_grad():
            for part in torch.as_tensor(x).split(32):
                part = part.to(weight).expand(-1, 3, -1, -1)
                size, how = (299, 299), {"mode": "bilinear", "antialias": True}
                out.append(function(interpolate(part, size, **how)))
        out = torch.cat(out)
        return out.to(x.device) if is_torch(x) else to_numpy(out)


def _identity():
    from torch import nn

    return nn.Identity()


def _features(real, fake):
    out = []
    for name, x in (("real", real), ("fake", fake)):
        x = to_numpy(as_float_array(x, name)).astype(np.float64)
        if len(x) < 2:
            raise ValueError(f"{name} must have at least two rows, got {len(x)}")
        out.append(x)
    if out[0].shape[1] != out[1].shape[1]:
        raise ValueError(
            "real and fake must have as many columns, "
            f"got {out[0].shape[1]} and {out[1].shape[1]}"
        )
    return out


# Exact on equal points: differences, not squares that cancel.
def _distances(x, y):
    from scipy.spatial.distance import cdist

    return cdist(x, y)


# The nearest of a point's own kind is itself, at distance zero.
def _neighbour_distance(x, k):
    out = np.empty(len(x))
    for rows in row_blocks(len(x), ROWS):
        out[rows] = np.partition(_distances(x[rows], x), k, axis=1)[:, k]
    return out
