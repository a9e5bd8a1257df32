r"""
Training on a subset that is selected anew every few epochs.

The loop alternates a selection and stochastic gradient descent on what was selected.
With :math:`l_i` the cross entropy of sample :math:`i`, a batch :math:`B` of the subset
moves the network along the gradient of

.. math:: L_B(\theta) = \frac{\sum_{i \in B} w_i l_i(\theta)}{\sum_{i \in B} w_i}
    \;\; \text{(batch)}, \qquad
    L_B(\theta) = \frac{1}{|B|} \sum_{i \in B} w_i l_i(\theta) \;\; \text{(mean)},

where the weights were scaled to mean 1 over the subset first.
"""

import math
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    to_numpy,
)

__all__ = [
    "CoresetSampler",
    "History",
    "STRATEGIES",
    "Snapshot",
    "fit_coreset",
    "random_crop_flip",
]

WEIGHT_NORMS = ("batch", "mean")

# Rows of one forward pass without gradients: few enough for a processor's cache, many
# enough to keep a GPU busy. Fixed, since the last digit of a matrix product may depend
# on its number of rows.
CHUNK = {"cpu": 200, "cuda": 5000}

# Streams of random numbers of one training: each a function of the seed, the stream
# and the epoch, so that none depends on what else was drawn.
_ORDER, _SELECT, _AUGMENT, _PASS = range(4)


def _rng(seed, stream, epoch):
    return np.random.default_rng((seed, stream, epoch))


class CoresetSampler(torch.utils.data.Sampler):
    r"""
    Sampler of a weighted subset that is selected anew every few epochs.

    Parameters
    ----------
    n : int
        Size of the data set.
    k : int
        Largest size of a subset.
    select : callable
        Called with the number of the epoch. Returns indices and weights, as a
        `Coreset` or another tuple that begins with them; or indices alone, which then
        weigh the same.
    every : int, default=5
        Epochs between two selections.
    warm_start : float, default=0.0
        Epochs on all the data before the first selection; a part of an epoch counts as
        a whole one.
    seed : int, default=0
        Source of the order within an epoch.

    Attributes
    ----------
    epoch : int or None
        What `set_epoch` was last called with.
    indices : Tensor of shape (len(self),)
        Samples of this epoch in their order.
    weights : Tensor of shape (len(self),)
        Their weights in the same order, float64, of mean 1.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fit_coreset : The training loop around it.

    Notes
    -----
    The order depends on the seed and the epoch alone. Iterating does not change it, so
    that ``weights.split(batch_size)`` are the weights of the batches which a
    ``DataLoader`` with this sampler yields.

    References
    ----------
    .. [1] K. Killamsetty, D. Sivasubramanian, G. Ramakrishnan and R. Iyer, "GLISTER:
       generalization based data subset selection for efficient and robust learning",
       AAAI 2021, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from lib.coresets import CoresetSampler
    >>> data = torch.utils.data.TensorDataset(torch.arange(100))
    >>> sampler = CoresetSampler(100, 6, lambda epoch: range(epoch, epoch + 6), every=2)
    >>> loader = torch.utils.data.DataLoader(data, batch_size=4, sampler=sampler)
    >>> for epoch in range(3):
    ...     sampler.set_epoch(epoch)
    ...     for (x,), w in zip(loader, sampler.weights.split(4), strict=True):
    ...         assert len(x) == len(w)
    ...     print(sorted(sampler))
    [0, 1, 2, 3, 4, 5]
    [0, 1, 2, 3, 4, 5]
    [2, 3, 4, 5, 6, 7]
    """

    def __init__(self, n, k, select, every=5, warm_start=0.0, seed=0):
        check_integer("n", n)
        _check_budget(k, n)
        if not callable(select):
            raise TypeError(f"select must be a callable, got {select!r}")
        check_integer("every", every)
        check_real("warm_start", warm_start, allow_zero=True)
        check_integer("seed", seed, minimum=0)
        self.n, self.k, self.select, self.every = n, k, select, every
        self.warm_start, self.seed, self.epoch = warm_start, seed, None
        self._period, self._subset = None, None

    def set_epoch(self, e):
        """
        Go to an epoch, and select if it is the first one seen of its period.

        Parameters
        ----------
        e : int
            Number of the epoch, from 0.

        Raises
        ------
        TypeError
            If ``e`` is no integer.
        ValueError
            If ``e`` is negative, or what ``select`` returned is no subset of at most
            ``k`` samples with non-negative weights, one of them positive.
        """
        check_integer("e", e, minimum=0)
        warm = math.ceil(self.warm_start)
        if e < warm:
            subset = torch.arange(self.n), torch.ones(self.n, dtype=torch.float64)
        else:
            period = (e - warm) // self.every
            if period != self._period:
                self._subset = _as_subset(self.select(int(e)), self.n, self.k)
                self._period = period
            subset = self._subset
        self.epoch = int(e)
        order = _rng(self.seed, _ORDER, self.epoch).permutation(len(subset[0]))
        self.indices, self.weights = (part[torch.from_numpy(order)] for part in subset)

    def __iter__(self):
        if self.epoch is None:
            self.set_epoch(0)
        return iter(self.indices.tolist())

    def __len__(self):
        if self.epoch is None:
            self.set_epoch(0)
        return len(self.indices)


@dataclass(frozen=True)
class Snapshot:
    """
    What a strategy sees of a training when it selects.

    Attributes
    ----------
    model : torch.nn.Module
        The network, in evaluation mode.
    X : Tensor of shape (n, ...)
        Training samples.
    y : Tensor of shape (n,)
        Their labels.
    val : tuple of Tensor or None
        Held-out samples and labels.
    k : int
        Number of samples to select.
    epoch : int
        Number of the epoch that is about to begin.
    lr : float
        Learning rate at the start of the training.
    batch_size : int
        Samples a step.
    seed : int
        Seed of the training.
    random_state : int
        Seed of this selection.

    Notes
    -----
    One forward pass over the data serves all properties.
    """

    model: nn.Module
    X: torch.Tensor
    y: torch.Tensor
    val: tuple | None
    k: int
    epoch: int
    lr: float
    batch_size: int
    seed: int
    random_state: int

    @cached_property
    def _outputs(self):
        return _outputs(self.model, self.X)

    @property
    def logits(self):
        """
        Give the logits of the training samples.

        Returns
        -------
        Tensor of shape (n, C)
            The logits.
        """
        return self._outputs[0]

    @property
    def features(self):
        """
        Give the input of the last layer for the training samples.

        Returns
        -------
        Tensor of shape (n, D)
            The features.
        """
        return self._outputs[1]

    @cached_property
    def gradients(self):
        """
        Give the last-layer gradients of the training samples.

        Returns
        -------
        Gradients
            Factored, weight and bias.
        """
        from lib.coresets import last_layer_gradients

        return last_layer_gradients(self.logits, self.y, self.features)

    @cached_property
    def val_gradients(self):
        """
        Give the last-layer gradients of the held-out samples.

        Returns
        -------
        Gradients
            Factored, weight and bias.

        Raises
        ------
        ValueError
            If there are no held-out samples.
        """
        from lib.coresets import last_layer_gradients

        if self.val is None:
            raise ValueError("val must be held-out samples for this strategy, got None")
        logits, features = _outputs(self.model, self.val[0])
        return last_layer_gradients(logits, self.val[1], features)


class History(NamedTuple):
    """
    What a training on subsets recorded, R replicas, E evaluations, S selections.

    Attributes
    ----------
    epoch : ndarray of shape (E,)
        Epochs done at each evaluation.
    step : ndarray of shape (R, E)
        Steps done.
    loss : ndarray of shape (R, E)
        Mean cross entropy over all training samples.
    train_accuracy : ndarray of shape (R, E)
        Accuracy on all training samples.
    test_accuracy : ndarray of shape (R, E)
        Accuracy on the test samples, NaN if there are none.
    step_seconds : ndarray of shape (R, E)
        Seconds spent on steps.
    selection_seconds : ndarray of shape (R, E)
        Seconds spent on selections, forward passes included.
    selection_epoch : ndarray of shape (S,)
        Epochs before which a subset was selected.
    effective_size : ndarray of shape (R, S)
        Effective sample size of each subset.
    empty_batches : ndarray of shape (R,)
        Steps whose samples all had weight zero.
    coresets : tuple of R tuples of S pairs of ndarray
        Indices and weights of each subset, weights of mean 1.
    models : tuple of R torch.nn.Module
        The trained networks.
    """

    epoch: np.ndarray
    step: np.ndarray
    loss: np.ndarray
    train_accuracy: np.ndarray
    test_accuracy: np.ndarray
    step_seconds: np.ndarray
    selection_seconds: np.ndarray
    selection_epoch: np.ndarray
    effective_size: np.ndarray
    empty_batches: np.ndarray
    coresets: tuple
    models: tuple


def fit_coreset(
    model,
    data,
    strategy,
    *,
    epochs=40,
    batch_size=20,
    every=5,
    fraction=0.1,
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    weight_norm="batch",
    warm_start=0.0,
    options=None,
    val=None,
    test=None,
    augment=None,
    evaluate=1,
    device=None,
    replicas=1,
    seed=0,
):
    r"""
    Train a classifier on subsets of the data, selected anew every few epochs.

    .. math:: S, w = \mathrm{select}(\theta_e) \;\; (e = 0, R, 2R, \dots), \qquad
        \theta \leftarrow \theta - \alpha_e \,
        \frac{\sum_{i \in B} w_i \nabla l_i(\theta)}{\sum_{i \in B} w_i},
        \quad B \subset S, \qquad
        \alpha_e = \tfrac{\alpha}{2} \Bigl(1 + \cos \frac{\pi e}{T}\Bigr)

    with momentum and weight decay, over :math:`T` epochs.

    Parameters
    ----------
    model : torch.nn.Module or callable
        A network with ``features(x)`` and a linear ``head``; it is trained in place.
        Or a function of a seed that makes one.
    data : tuple of (array, array) or torch.utils.data.Dataset
        Training samples of shape (n, ...) and labels 0, ..., C - 1 of shape (n,).
    strategy : str or callable
        One of `STRATEGIES`, or a function of a `Snapshot` that returns indices and
        weights, as a `Coreset` does, or indices alone.
    epochs : int, default=40
        Passes through the subset, the warm start included.
    batch_size : int, default=20
        Samples a step. The last batch of an epoch may be smaller.
    every : int, default=5
        Epochs between two selections.
    fraction : float, default=0.1
        Size of the subset over n.
    lr : float, default=0.01
        Learning rate of the first epoch.
    momentum : float, default=0.9
        Momentum.
    weight_decay : float, default=5e-4
        Weight decay.
    weight_norm : {"batch", "mean"}, default="batch"
        Whether a batch's loss is divided by the sum of its weights or its size.
    warm_start : float, default=0.0
        Epochs on all the data before the first selection, rounded up.
    options : dict, optional
        Arguments of the selector, such as ``{"lam": 0.1}``. ``per_class=False`` lets
        "craig", "grad_match" and "glister_weighted" select from all classes at once.
    val : tuple or Dataset, optional
        Held-out samples, which GLISTER needs.
    test : tuple or Dataset, optional
        Test samples.
    augment : callable, optional
        Function of a batch of samples and a ``torch.Generator`` that gives the batch
        to train on; such as `random_crop_flip`. Selections see the samples as they are.
    evaluate : int, default=1
        Epochs between two evaluations; the last epoch always has one.
    device : str or torch.device, optional
        Where to train; by default where the model is.
    replicas : int, default=1
        Number of trainings; more than one needs a function as ``model``.
    seed : int, default=0
        Replica r has the seed ``seed + r``, and is what a training of its own with that
        seed is.

    Returns
    -------
    History
        Curves, selections and the trained networks.

    Raises
    ------
    RuntimeError
        If a loss is not finite; the message names the epoch.
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, data do not fit the model, or a strategy needs
        held-out samples and there are none.

    Warns
    -----
    RuntimeWarning
        If batches had samples of weight zero only. Their loss counts as zero: the step
        is made by momentum and weight decay alone.

    See Also
    --------
    CoresetSampler : The subset of each epoch, for a loop of one's own.

    Notes
    -----
    Strategies without a selector of that name:

    - "full": all samples in every epoch; "full_es": all samples in random order, but
      only as many an epoch as the others, which makes equal steps and an equal
      schedule.
    - "random": a new random subset at every selection; "random_fixed": one for all
      epochs.
    - "grad_match_eqw": the samples that "grad_match" picks, with equal weights;
      "grad_match_batch": mini-batches in place of samples, with equal weights inside.
    - "glister" has ``eta=lr`` unless `options` has another; its step is one of the sum
      of losses.

    The network's dtype decides in what precision everything is computed; in float64 and
    on one thread a training is deterministic to the last bit. One step costs a forward
    and a backward pass over a batch, one selection a forward pass over all data and
    what the selector costs.

    References
    ----------
    .. [1] K. Killamsetty, D. Sivasubramanian, G. Ramakrishnan, A. De and R. Iyer,
       "GRAD-MATCH: gradient matching based data subset selection for efficient deep
       model training", ICML 2021, Algorithm 1.
    .. [2] I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm
       restarts", ICLR 2017, equation 5.

    Examples
    --------
    >>> from lib.coresets import MLP, fit_coreset
    >>> from lib.data import load
    >>> X, y = load("digits", flatten=True)
    >>> history = fit_coreset(
    ...     lambda seed: MLP(generator=seed),
    ...     (X, y),
    ...     "random",
    ...     epochs=10,
    ...     lr=0.1,
    ...     replicas=2,
    ... )
    >>> history.loss.shape, bool((history.train_accuracy[:, -1] > 0.6).all())
    ((2, 10), True)
    """
    for name, value in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("every", every),
        ("evaluate", evaluate),
        ("replicas", replicas),
    ):
        check_integer(name, value)
    check_integer("seed", seed, minimum=0)
    check_real("fraction", fraction)
    if fraction > 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction!r}")
    check_real("lr", lr)
    check_real("momentum", momentum, allow_zero=True)
    check_real("weight_decay", weight_decay, allow_zero=True)
    check_real("warm_start", warm_start, allow_zero=True)
    check_choice("weight_norm", weight_norm, WEIGHT_NORMS)
    if not callable(strategy):
        check_choice("strategy", strategy, STRATEGIES)
    if augment is not None and not callable(augment):
        raise TypeError(f"augment must be a callable or None, got {augment!r}")
    if isinstance(model, nn.Module) and replicas > 1:
        raise ValueError(
            "replicas must be 1 for one network, got "
            f"{replicas}; give a function of the seed as model instead"
        )
    options = {} if options is None else dict(options)
    models = [_make_model(model, seed + r, device) for r in range(replicas)]
    data = _as_pair("data", data, models[0])
    val = None if val is None else _as_pair("val", val, models[0])
    test = None if test is None else _as_pair("test", test, models[0])
    runs = []
    for replica, network in enumerate(models):
        run = _Run(
            network,
            data,
            strategy,
            options,
            val=val,
            test=test,
            epochs=epochs,
            batch_size=batch_size,
            every=every,
            fraction=fraction,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            weight_norm=weight_norm,
            warm_start=warm_start,
            augment=augment,
            seed=seed + replica,
        )
        run.fit(epochs, evaluate)
        runs.append(run)
    curves = {
        name: np.array([run.curves[name] for run in runs]) for name in runs[0].curves
    }
    empty = np.array([run.empty_batches for run in runs])
    if empty.any():
        warnings.warn(
            f"{empty.sum()} batches had samples of weight zero only; no sample moved "
            "the network there",
            RuntimeWarning,
            stacklevel=2,
        )
    return History(
        epoch=curves.pop("epoch")[0],
        **curves,
        selection_epoch=np.array(runs[0].selection_epochs),
        effective_size=np.array([run.effective_sizes for run in runs]),
        empty_batches=empty,
        coresets=tuple(tuple(run.coresets) for run in runs),
        models=tuple(run.model for run in runs),
    )


def random_crop_flip(x, generator, *, padding=4):
    """
    Shift each image by a few pixels and mirror every second one, at random.

    Parameters
    ----------
    x : Tensor of shape (n, channels, height, width)
        Images.
    generator : torch.Generator
        Source of the shifts, on the CPU.
    padding : int, default=4
        Largest shift; what comes in at the border is zero.

    Returns
    -------
    Tensor of shape (n, channels, height, width)
        The images, moved.

    Raises
    ------
    TypeError
        If ``padding`` is no integer.
    ValueError
        If ``x`` is not 4-D, or ``padding`` is negative.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image
       recognition", CVPR 2016, Section 4.2.

    Examples
    --------
    >>> import torch
    >>> from lib.coresets import random_crop_flip
    >>> x = torch.ones(2, 3, 32, 32)
    >>> random_crop_flip(x, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """
    check_integer("padding", padding, minimum=0)
    if x.ndim != 4:
        raise ValueError(f"x must be 4-D, got shape {tuple(x.shape)}")
    n, _, height, width = x.shape
    shift = torch.randint(2 * padding + 1, (2, n, 1), generator=generator)
    flip = torch.randint(2, (n, 1), generator=generator, dtype=torch.bool)
    rows = shift[0] + torch.arange(height)
    columns = torch.arange(width).expand(n, -1)
    columns = shift[1] + torch.where(flip, width - 1 - columns, columns)
    padded = nn.functional.pad(x, (padding,) * 4)
    image = torch.arange(n)[:, None, None]
    index = (i.to(x.device) for i in (image, rows[:, :, None], columns[:, None, :]))
    image, rows, columns = index
    # indexing beside a slice puts the channels last
    return padded[image, :, rows, columns].permute(0, 3, 1, 2)


# One training: what fit_coreset does for one seed.
class _Run:
    def __init__(
        self,
        model,
        data,
        strategy,
        options,
        *,
        val,
        test,
        epochs,
        batch_size,
        every,
        fraction,
        lr,
        momentum,
        weight_decay,
        weight_norm,
        warm_start,
        augment,
        seed,
    ):
        self.model = model
        (self.X, self.y), self.val, self.test = data, val, test
        self.strategy, self.options = strategy, options
        self.lr, self.batch_size, self.seed = lr, batch_size, seed
        self.weight_norm, self.augment = weight_norm, augment
        n = len(self.y)
        self.k = n if strategy == "full" else max(1, round(fraction * n))
        every = {"full": epochs, "full_es": 1, "random_fixed": epochs}.get(
            strategy if isinstance(strategy, str) else None, every
        )
        self.sampler = CoresetSampler(n, self.k, self._select, every, warm_start, seed)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        self.seconds = {"step": 0.0, "selection": 0.0}
        self.steps = self.empty_batches = 0
        self.selection_epochs, self.effective_sizes, self.coresets = [], [], []
        names = ("epoch", "step", "loss", "train_accuracy", "test_accuracy")
        self.curves = {
            name: [] for name in (*names, "step_seconds", "selection_seconds")
        }

    def fit(self, epochs, evaluate):
        for epoch in range(epochs):
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr / 2 * (1 + math.cos(math.pi * epoch / epochs))
            self.sampler.set_epoch(epoch)
            self._epoch(epoch)
            if (epoch + 1) % evaluate == 0 or epoch + 1 == epochs:
                self._evaluate(epoch + 1)

    # Indices and weights go to the device once an epoch, and no step waits for it.
    def _epoch(self, epoch):
        start = self._clock()
        self.model.train()
        rows, weights = self.sampler.indices, self.sampler.weights
        self.empty_batches += sum(
            int(not part.any()) for part in weights.split(self.batch_size)
        )
        generator = torch.Generator().manual_seed(
            int(_rng(self.seed, _AUGMENT, epoch).integers(2**63))
        )
        parts = zip(
            rows.to(self.X.device).split(self.batch_size),
            weights.to(self.X).split(self.batch_size),
            strict=True,
        )
        total = 0
        for batch, w in parts:
            x = self.X[batch]
            if self.augment is not None:
                x = self.augment(x, generator)
            loss = _weighted_loss(self.model(x), self.y[batch], w, self.weight_norm)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total = total + loss.detach()
            self.steps += 1
        if not torch.isfinite(total):
            raise RuntimeError(
                f"a loss is {total.item()} in epoch {epoch + 1}: the training stopped "
                f"there, lr={self.lr} may be too large"
            )
        self.seconds["step"] += self._clock() - start

    def _select(self, epoch):
        start = self._clock()
        self.model.eval()
        seed = int(_rng(self.seed, _SELECT, epoch).integers(2**31))
        snapshot = Snapshot(
            model=self.model,
            X=self.X,
            y=self.y,
            val=self.val,
            k=self.k,
            epoch=epoch,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=self.seed,
            random_state=seed,
        )
        if callable(self.strategy):
            core = self.strategy(snapshot, **self.options)
        else:
            core = STRATEGIES[self.strategy](snapshot, **self.options)
        subset = _as_subset(core, len(self.y), self.k)
        self.seconds["selection"] += self._clock() - start
        self.selection_epochs.append(epoch)
        self.coresets.append(tuple(part.numpy() for part in subset))
        self.effective_sizes.append(_effective_size(subset[1]))
        return subset

    def _evaluate(self, epoch):
        self.model.eval()
        logits = _outputs(self.model, self.X)[0]
        values = {
            "epoch": epoch,
            "step": self.steps,
            "loss": float(cross_entropy(logits, self.y)),
            "train_accuracy": _accuracy(logits, self.y),
            "test_accuracy": math.nan,
            "step_seconds": self.seconds["step"],
            "selection_seconds": self.seconds["selection"],
        }
        if self.test is not None:
            logits = _outputs(self.model, self.test[0])[0]
            values["test_accuracy"] = _accuracy(logits, self.test[1])
        for name, value in values.items():
            self.curves[name].append(value)

    def _clock(self):
        if self.X.is_cuda:
            torch.cuda.synchronize(self.X.device)
        return time.perf_counter()


def _weighted_loss(logits, y, w, weight_norm):
    losses = w * cross_entropy(logits, y, reduction="none")
    if weight_norm == "mean":
        return losses.mean()
    total = w.sum()
    return losses.sum() / torch.where(total > 0, total, torch.ones_like(total))


def _effective_size(w):
    return float(w.sum() ** 2 / (w**2).sum())


def _accuracy(logits, y):
    return float((logits.argmax(1) == y).double().mean())


# Logits and features of all rows, without gradients.
@torch.no_grad()
def _outputs(model, X):
    rows = CHUNK.get(X.device.type, 1000)
    features = torch.cat([model.features(part) for part in X.split(rows)])
    return torch.cat([model.head(part) for part in features.split(rows)]), features


def _make_model(model, seed, device):
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise TypeError(
                "model must be a torch.nn.Module or a function of a seed, "
                f"got {model!r}"
            )
        model = model(seed)
    if not (
        isinstance(model, nn.Module)
        and callable(getattr(model, "features", None))
        and isinstance(getattr(model, "head", None), nn.Linear)
    ):
        raise TypeError(
            "model must have features(x) and a torch.nn.Linear head, "
            f"got {type(model).__name__}"
        )
    return model if device is None else model.to(device)


def _as_pair(name, data, model):
    if isinstance(data, torch.utils.data.Dataset):
        rows = [data[i] for i in range(len(data))]
        if not rows:
            raise ValueError(f"{name} must have at least one sample, got none")
        data = torch.stack([torch.as_tensor(x) for x, _ in rows]), [y for _, y in rows]
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"{name} must be a pair of samples and labels or a Dataset, "
            f"got {type(data).__name__}"
        )
    X = torch.as_tensor(as_float_array(data[0], f"{name}[0]", ndim=(2, 3, 4)))
    y = torch.as_tensor(np.array(data[1]) if isinstance(data[1], list) else data[1])
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"{name}[1] must hold integer labels, got {y.dtype}")
    if y.shape != (len(X),) or not len(X):
        raise ValueError(
            f"{name} must have one label a sample and at least one sample, got shapes "
            f"{tuple(X.shape)} and {tuple(y.shape)}"
        )
    n_classes = model.head.out_features
    if y.min() < 0 or y.max() >= n_classes:
        raise ValueError(
            f"{name}[1] must hold labels 0 to {n_classes - 1}, got "
            f"{int(y.min())} to {int(y.max())}"
        )
    weight = model.head.weight
    return X.to(weight), y.to(weight.device, torch.int64)


def _check_budget(k, n):
    check_integer("k", k)
    if k > n:
        raise ValueError(f"k must be at most n={n}, got {k}")


# Indices and weights of mean 1, on the CPU, from what a selection returned.
def _as_subset(core, n, k):
    pair = isinstance(core, tuple) and len(core) >= 2 and np.ndim(core[0]) == 1
    indices = to_numpy(core[0] if pair else core)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise TypeError(
            "select must return a vector of integer indices, got an array of shape "
            f"{indices.shape} and dtype {indices.dtype}"
        )
    weights = np.ones(len(indices)) if not pair else to_numpy(core[1])
    if not 1 <= len(indices) <= k or indices.min() < 0 or indices.max() >= n:
        span = f"{indices.min()} to {indices.max()}" if len(indices) else "none"
        raise ValueError(
            f"select must return 1 to {k} indices from 0 to {n - 1}, got "
            f"{len(indices)}, {span}"
        )
    weights = as_float_array(weights, "weights of select", ndim=1).astype(np.float64)
    if len(weights) != len(indices):
        raise ValueError(
            f"select must return as many weights as indices, {len(indices)}, got "
            f"{len(weights)}"
        )
    if weights.min() < 0 or not weights.any():
        raise ValueError(
            "weights of select must be non-negative, at least one positive, got "
            f"{weights.min():g} to {weights.max():g}"
        )
    indices = torch.from_numpy(indices.astype(np.int64))
    return indices, torch.from_numpy(weights / weights.mean())


# The strategies with a name: functions of a snapshot and of options of the selector.


def _full(snapshot):
    return np.arange(len(snapshot.y))


# The next k samples of a stream of shuffled passes through the data.
def _full_es(snapshot):
    n, k = len(snapshot.y), snapshot.k
    place = snapshot.epoch * k + np.arange(k)
    passes = {
        p: _rng(snapshot.seed, _PASS, int(p)).permutation(n)
        for p in np.unique(place // n)
    }
    return np.array([passes[p][i] for p, i in zip(place // n, place % n, strict=True)])


def _random(snapshot):
    rng = np.random.default_rng(snapshot.random_state)
    return rng.choice(len(snapshot.y), snapshot.k, replace=False)


def _craig(snapshot, *, per_class=True, **options):
    from lib.coresets import craig

    return craig(
        snapshot.gradients,
        snapshot.k,
        y=snapshot.y if per_class else None,
        random_state=snapshot.random_state,
        **options,
    )


def _grad_match(snapshot, *, per_class=True, **options):
    from lib.coresets import grad_match

    return grad_match(
        snapshot.gradients,
        snapshot.k,
        y=snapshot.y if per_class else None,
        random_state=snapshot.random_state,
        **options,
    )


def _grad_match_eqw(snapshot, **options):
    return _grad_match(snapshot, **options)[0]


# Atoms are the mean gradients of the whole batches of a random partition, the target
# is the sum over all samples. A selection that ends early is filled with random
# batches of weight one a sample.
def _grad_match_batch(snapshot, *, lam=0.5):
    from lib.coresets import omp_nonneg

    size, n = snapshot.batch_size, len(snapshot.y)
    if snapshot.k < size:
        raise ValueError(
            f"batch_size must be at most the budget k={snapshot.k} for "
            f"'grad_match_batch', got {size}"
        )
    rng = np.random.default_rng(snapshot.random_state)
    batches = rng.permutation(n)[: n // size * size].reshape(-1, size)
    G = snapshot.gradients
    ones = torch.ones(n).to(snapshot.X)
    atoms = torch.stack([(G[rows].sum(ones[:size]) / size).ravel() for rows in batches])
    target = G.sum(ones).ravel()
    budget = snapshot.k // size
    picks, w, *_ = omp_nonneg(atoms @ atoms.T, atoms @ target, budget, lam)
    picks, w = to_numpy(picks), to_numpy(w).astype(np.float64)
    rest = rng.permutation(np.setdiff1d(np.arange(len(batches)), picks))
    rest = rest[: budget - len(picks)]
    picks, w = np.append(picks, rest), np.append(w, np.full(len(rest), float(size)))
    return batches[picks].ravel(), np.repeat(w / size, size)


def _glister(snapshot, **options):
    from lib.coresets import glister

    options = {"eta": snapshot.lr} | options
    return glister(
        snapshot.gradients, snapshot.k, val=snapshot.val_gradients, **options
    )


def _glister_weighted(snapshot, *, per_class=True, **options):
    from lib.coresets import glister_weighted

    return glister_weighted(
        snapshot.gradients,
        snapshot.k,
        y=snapshot.y if per_class else None,
        **options,
    )


def _k_center(snapshot, **options):
    from lib.coresets import k_center_greedy

    return k_center_greedy(snapshot.features, snapshot.k, **options)


#: Named strategies: functions of a `Snapshot` and of options of the selector.
STRATEGIES = {
    "full": _full,
    "full_es": _full_es,
    "random": _random,
    "random_fixed": _random,
    "craig": _craig,
    "grad_match": _grad_match,
    "grad_match_eqw": _grad_match_eqw,
    "grad_match_batch": _grad_match_batch,
    "glister": _glister,
    "glister_weighted": _glister_weighted,
    "k_center": _k_center,
}
