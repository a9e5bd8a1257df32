r"""
Training two networks against each other.

With logits :math:`l` of the discriminator, real samples :math:`x` and generated ones
:math:`G(z)`, and both players minimising,

.. math::
    L_D &= \mathbb{E}\, s(-l(x)) + \mathbb{E}\, s(l(G(z))),
    \qquad s(t) = \log(1 + e^t), \\
    L_G &= \mathbb{E}\, s(-l(G(z))) \;\; \text{(ns)}, \qquad
    L_G = -\mathbb{E}\, s(l(G(z))) \;\; \text{(minimax)},

and for a critic :math:`L_D = \mathbb{E}\, l(G(z)) - \mathbb{E}\, l(x)` and
:math:`L_G = -\mathbb{E}\, l(G(z))` (wgan).
"""

import contextlib
import copy
import math
import signal

import numpy as np
import torch
from torch.nn.functional import softplus

from lib._backend import as_float_array, check_choice, check_integer, check_real
from lib.games.models import _as_generator

__all__ = ["GANTrainer", "History", "gan_losses"]

LOSSES = ("ns", "minimax", "wgan")
UPDATES = ("alternating", "simultaneous")


def gan_losses(real, fake, loss="ns"):
    r"""
    Give the losses of both players from the logits of a batch.

    .. math:: L_D = \mathbb{E}\, s(-l(x)) + \mathbb{E}\, s(l(G(z))),
        \qquad L_G = \mathbb{E}\, s(-l(G(z)))

    for the non-saturating game, with :math:`s(t) = \log(1 + e^t)`; the others are
    in the notes.

    Parameters
    ----------
    real : Tensor of shape (n,)
        Logits of real samples.
    fake : Tensor of shape (n,)
        Logits of generated samples.
    loss : {"ns", "minimax", "wgan"}, default="ns"
        The game.

    Returns
    -------
    loss_d, loss_g : Tensor of shape ()
        What the discriminator and what the generator minimises.

    Raises
    ------
    ValueError
        If the loss is unknown.

    Notes
    -----
    "minimax" has :math:`L_G = -\mathbb{E}\, s(l(G(z))) = \mathbb{E} \log(1 -
    D(G(z)))`, the part of the zero-sum game that the generator can move. "wgan" has
    :math:`L_D = \mathbb{E}\, l(G(z)) - \mathbb{E}\, l(x)` and :math:`L_G =
    -\mathbb{E}\, l(G(z))`. No loss ever takes the logarithm of a probability, so none
    overflows.

    References
    ----------
    .. [1] I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014,
       equation 1 and the end of Section 3.
    .. [2] M. Arjovsky, S. Chintala and L. Bottou, "Wasserstein generative adversarial
       networks", ICML 2017, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from lib.games import gan_losses
    >>> d, g = gan_losses(torch.zeros(4), torch.zeros(4))
    >>> round(d.item(), 4), round(g.item(), 4)
    (1.3863, 0.6931)
    """
    check_choice("loss", loss, LOSSES)
    if loss == "wgan":
        return fake.mean() - real.mean(), -fake.mean()
    loss_d = softplus(-real).mean() + softplus(fake).mean()
    if loss == "ns":
        return loss_d, softplus(-fake).mean()
    return loss_d, -softplus(fake).mean()


class History(dict):
    """
    What a training recorded: lists of numbers, ready for ``json.dumps``.

    Keys "step", "loss_d" and "loss_g" have one entry a step; callbacks may add others
    with `record`.

    Examples
    --------
    >>> import json
    >>> from lib.games import History
    >>> history = History(step=[1, 2], loss_g=[0.7, 0.6])
    >>> history.record(score=0.5)
    >>> json.dumps(history)
    '{"step": [1, 2], "loss_g": [0.7, 0.6], "score": [0.5]}'
    """

    def record(self, **values):
        """
        Append one number to each named list.

        Parameters
        ----------
        **values : float
            Numbers by name.
        """
        for name, value in values.items():
            self.setdefault(name, []).append(
                value.item() if hasattr(value, "item") else value
            )


class GANTrainer:
    r"""
    Train a generator and a discriminator against each other.

    One step is ``n_critic`` steps of the discriminator and one of the generator. An
    alternating step lets the generator answer the new discriminator, with new noise; a
    simultaneous one takes both gradients at the same point and from the same batch.

    Parameters
    ----------
    G : torch.nn.Module
        Generator; the attribute ``latent_dim`` is the dimension of its noise, 100 where
        there is none.
    D : torch.nn.Module
        Discriminator or critic, one logit a sample.
    opt_g : torch.optim.Optimizer
        Optimizer of the generator's parameters, or, with ``opt_d=None``, one optimizer
        of both players, such as :class:`ConsensusOptimizer`, whose ``step(closure)``
        calls a closure that returns both losses.
    opt_d : torch.optim.Optimizer or None
        Optimizer of the discriminator's parameters.
    loss : {"ns", "minimax", "wgan"}, default="ns"
        The game, as in :func:`gan_losses`.
    n_critic : int, default=1
        Steps of the discriminator a step.
    clip : float or None, default=None
        After each of its steps, clip the discriminator's weights to [-clip, clip].
    update : {"alternating", "simultaneous"}, default="alternating"
        Who sees whose new weights.
    batch_size : int, default=64
        Samples a batch, of either kind.
    generator : torch.Generator, int or None, default=None
        Source of batches and noise; None takes fresh entropy, never torch's global
        state.

    Attributes
    ----------
    step : int
        Steps taken.
    history : History
        Losses of every step, and what callbacks recorded.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, or the update does not suit the optimizers:
        one optimizer of both players and extrapolating ones (ExtraSGD, ExtraAdam) need
        ``update="simultaneous"``, and that needs ``n_critic=1``.

    See Also
    --------
    gan_losses : The losses, for a loop of one's own.

    Notes
    -----
    Batches and noise are functions of a seed and the step number, drawn on the CPU in
    double precision: a run in float64 on one thread is deterministic, and one that was
    cut off goes on bit for bit from `state_dict`. An epoch shuffles the data and
    leaves out the rows that fill no batch.

    Optimizers with a method ``extrapolate`` take half a step with the gradients of one
    batch and the whole step with those of the next.

    References
    ----------
    .. [1] I. Goodfellow et al., "Generative adversarial nets", NeurIPS 2014,
       Algorithm 1.
    .. [2] M. Arjovsky, S. Chintala and L. Bottou, "Wasserstein generative adversarial
       networks", ICML 2017, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from lib.games import GANTrainer, ring_networks
    >>> x = torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
    >>> G, D = ring_networks(generator=0)
    >>> opt_g, opt_d = (torch.optim.Adam(net.parameters()) for net in (G, D))
    >>> trainer = GANTrainer(G, D, opt_g, opt_d, generator=0)
    >>> history = trainer.fit(x, steps=3, progress=False)
    >>> history["step"]
    [1, 2, 3]
    """

    def __init__(
        self,
        G,
        D,
        opt_g,
        opt_d,
        loss="ns",
        n_critic=1,
        clip=None,
        update="alternating",
        *,
        batch_size=64,
        generator=None,
    ):
        for name, network in (("G", G), ("D", D)):
            if not isinstance(network, torch.nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {network!r}")
        for name, opt in (("opt_g", opt_g), ("opt_d", opt_d)):
            if not hasattr(opt, "step") and not (name == "opt_d" and opt is None):
                raise TypeError(f"{name} must be an optimizer, got {opt!r}")
        check_choice("loss", loss, LOSSES)
        check_choice("update", update, UPDATES)
        check_integer("n_critic", n_critic)
        check_integer("batch_size", batch_size)
        if clip is not None:
            check_real("clip", clip)
        extra = [hasattr(opt, "extrapolate") for opt in (opt_g, opt_d) if opt]
        if update == "alternating" and (opt_d is None or any(extra)):
            raise ValueError(
                "update must be 'simultaneous' for an optimizer of both players or one "
                f"that extrapolates, got update={update!r}"
            )
        if any(extra) and not all(extra):
            raise ValueError("opt_g and opt_d must both extrapolate, got only one")
        if update == "simultaneous" and n_critic != 1:
            raise ValueError(
                f"n_critic must be 1 with update='simultaneous', got {n_critic}"
            )
        self.G, self.D, self.opt_g, self.opt_d = G, D, opt_g, opt_d
        self.loss, self.n_critic, self.clip, self.update = loss, n_critic, clip, update
        self.batch_size = int(batch_size)
        self.step, self.history = 0, History(step=[], loss_d=[], loss_g=[])
        self._extrapolates = any(extra)
        twice = self._extrapolates or getattr(opt_g, "unbiased", False)
        self._parts = 2 if twice else n_critic  # batches a step
        self._seed = _draw_seed(generator)
        self._order = (None, None)

    def fit(self, x, *, epochs=None, steps=None, callbacks=(), progress=True):
        """
        Train for a number of steps or epochs more.

        Parameters
        ----------
        x : Tensor or ndarray of shape (n, d) or (n, channels, height, width)
            Real samples; images lie in [-1, 1].
        epochs : float, optional
            Passes through the data by the discriminator.
        steps : int, optional
            Steps, in place of epochs.
        callbacks : sequence of callables
            Called with the trainer after every step; one that returns True ends the
            training.
        progress : bool, default=True
            Whether to show a progress bar.

        Returns
        -------
        History
            Everything recorded so far. The key "interrupted" is True if Ctrl-C
            ended the training; it does so between two steps, and another call of
            ``fit`` goes on.

        Raises
        ------
        RuntimeError
            If a loss is not finite; the message names the step.
        TypeError
            If the data have a wrong type or a callback cannot be called.
        ValueError
            If not exactly one of epochs and steps is given, the data are fewer than a
            batch, of another shape than the generator's samples, not finite, or images
            outside [-1, 1].
        """
        x = self._check_data(x)
        if (epochs is None) == (steps is None):
            raise ValueError(
                "exactly one of epochs and steps must be given, "
                f"got epochs={epochs!r} and steps={steps!r}"
            )
        if steps is None:
            check_real("epochs", epochs)
            steps = math.ceil(epochs * (len(x) // self.batch_size) / self._parts)
        check_integer("steps", steps)
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks must be callables, got {callback!r}")
        self.history["interrupted"] = False
        with _progress(steps if progress else 0) as advance, _interrupt() as stop:
            for _ in range(steps):
                self.G.train(), self.D.train()
                self._step(x)
                advance()
                if any([callback(self) is True for callback in callbacks]):
                    break
                if stop:
                    self.history["interrupted"] = True
                    break
        return self.history

    def losses(self, x, z):
        """
        Give both players' losses on one batch, in one graph.

        The samples G(z) are not detached: the gradient of either loss with respect to
        either player's parameters can be taken, as consensus optimisation needs.

        Parameters
        ----------
        x : Tensor of shape (n, ...)
            Real samples.
        z : Tensor of shape (n, latent_dim)
            Noise.

        Returns
        -------
        loss_d, loss_g : Tensor of shape ()
            The losses of discriminator and generator.
        """
        return gan_losses(self.D(x), self.D(self.G(z)), self.loss)

    @torch.no_grad()
    def sample(self, n, *, generator=0):
        """
        Draw samples from the generator as it is now, in evaluation mode.

        Parameters
        ----------
        n : int
            Number of samples.
        generator : torch.Generator, int or None, default=0
            Source of the noise: by default always the same one.

        Returns
        -------
        Tensor of shape (n, ...)
            Samples.

        Raises
        ------
        TypeError
            If an argument has a wrong type.
        ValueError
            If ``n < 1``.
        """
        check_integer("n", n)
        z = self._noise(n, np.random.default_rng(_draw_seed(generator)))
        training = self.G.training
        self.G.eval()
        try:
            return torch.cat([self.G(part) for part in z.split(4096)])
        finally:
            self.G.train(training)

    def state_dict(self):
        """
        Copy everything that the next step depends on.

        Returns
        -------
        dict
            Step, seed, history, and the states of networks and optimizers.
        """
        state = {"step": self.step, "seed": self._seed, "history": dict(self.history)}
        for name in ("G", "D", "opt_g", "opt_d"):
            part = getattr(self, name)
            state[name] = None if part is None else part.state_dict()
        return copy.deepcopy(state)

    def load_state_dict(self, state):
        """
        Go on from a copied state.

        Parameters
        ----------
        state : dict
            What `state_dict` returned, of a trainer made with the same arguments.
        """
        state = copy.deepcopy(state)
        self.step, self._seed = state["step"], state["seed"]
        self.history, self._order = History(state["history"]), (None, None)
        for name in ("G", "D", "opt_g", "opt_d"):
            if state[name] is not None:
                getattr(self, name).load_state_dict(state[name])

    # One step. Part k of it has its own batch and its own noise.
    def _step(self, x):
        if self.opt_d is None:
            losses = self._joint(x)
        elif self.update == "simultaneous":
            losses = self._simultaneous(x)
        else:
            losses = self._alternating(x)
        self.step += 1
        self.history.record(step=self.step, loss_d=losses[0], loss_g=losses[1])

    def _alternating(self, x):
        for k in range(self.n_critic):
            with torch.no_grad():
                fake = self.G(self._part_noise(k))
            real = self._batch(x, k)
            loss_d, _ = gan_losses(self.D(real), self.D(fake), self.loss)
            self._check(loss_d=loss_d)
            _set_gradients(self.D, loss_d)
            self.opt_d.step()
            self._clip()
        # The generator's loss needs no real samples; the fake ones stand in for them.
        fake = self.D(self.G(self._part_noise(self.n_critic)))
        _, loss_g = gan_losses(fake, fake, self.loss)
        self._check(loss_g=loss_g)
        _set_gradients(self.G, loss_g)
        self.opt_g.step()
        return loss_d.detach(), loss_g.detach()

    def _simultaneous(self, x):
        for k in range(2 if self._extrapolates else 1):
            losses = self.losses(self._batch(x, k), self._part_noise(k))
            self._check(loss_d=losses[0], loss_g=losses[1])
            _set_gradients(self.D, losses[0], retain_graph=True)
            _set_gradients(self.G, losses[1])
            for opt in (self.opt_d, self.opt_g):
                opt.extrapolate() if self._extrapolates and not k else opt.step()
            self._clip()
        return losses[0].detach(), losses[1].detach()

    # Every call of the closure sees another batch: independent ones, where an
    # optimizer asks for two.
    def _joint(self, x):
        seen = []

        def closure():
            k = len(seen)
            losses = self.losses(self._batch(x, k), self._part_noise(k))
            self._check(loss_d=losses[0], loss_g=losses[1])
            seen.append([loss.detach() for loss in losses])
            return losses

        self.opt_g.step(closure)
        self._clip()
        return seen[0]

    def _check(self, **losses):
        for name, loss in losses.items():
            if not torch.isfinite(loss):
                raise RuntimeError(
                    f"{name} is {loss.item()} at step {self.step + 1}: the training "
                    "stopped before that step"
                )

    @torch.no_grad()
    def _clip(self):
        if self.clip is not None:
            for weight in self.D.parameters():
                weight.clamp_(-self.clip, self.clip)

    # Batches follow one another through a shuffled epoch; an epoch's order depends on
    # its number alone.
    def _batch(self, x, k):
        number = self.step * self._parts + k
        epoch, place = divmod(number, len(x) // self.batch_size)
        if self._order[0] != (epoch, len(x)):
            order = self._rng("order", epoch).permutation(len(x))
            self._order = (epoch, len(x)), torch.from_numpy(order)
        rows = self._order[1][place * self.batch_size : (place + 1) * self.batch_size]
        return x[rows.to(x.device)]

    def _part_noise(self, k):
        return self._noise(self.batch_size, self._rng("noise", self.step, k))

    def _noise(self, n, rng):
        z = rng.standard_normal((n, getattr(self.G, "latent_dim", 100)))
        return torch.from_numpy(z).to(next(self.G.parameters()))

    def _rng(self, *axes):
        names = {"order": 0, "noise": 1}
        return np.random.default_rng((self._seed, names[axes[0]], *axes[1:]))

    def _check_data(self, x):
        x = as_float_array(x, "x", ndim=(2, 4))
        if x.ndim == 4 and abs(x).max() > 1:
            raise ValueError(
                "images in x must lie in [-1, 1], got values from "
                f"{float(x.min()):g} to {float(x.max()):g}"
            )
        if len(x) < self.batch_size:
            raise ValueError(
                f"x must have at least batch_size={self.batch_size} rows, got {len(x)}"
            )
        shape = self.sample(1).shape[1:]
        if tuple(x.shape[1:]) != tuple(shape):
            raise ValueError(
                f"x must have samples of the generator's shape {tuple(shape)}, "
                f"got {tuple(x.shape[1:])}"
            )
        return torch.as_tensor(x).to(next(self.G.parameters()))


def _draw_seed(generator):
    return int(torch.randint(2**62, (), generator=_as_generator(generator)))


# The gradient of one player's loss with respect to its own parameters only.
def _set_gradients(network, loss, retain_graph=False):
    weights = [w for w in network.parameters() if w.requires_grad]
    gradients = torch.autograd.grad(
        loss, weights, retain_graph=retain_graph, allow_unused=True
    )
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient


@contextlib.contextmanager
def _progress(steps):
    from tqdm import tqdm

    with tqdm(total=steps, desc="training", unit="step", disable=not steps) as bar:
        yield bar.update


# Ctrl-C fills the list instead of tearing a step; the second one tears it. Where
# somebody else handles the signal, it is left to them.
@contextlib.contextmanager
def _interrupt():
    stop = []

    def handle(number, frame):
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    try:
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread
        ours = False
    try:
        yield stop
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
