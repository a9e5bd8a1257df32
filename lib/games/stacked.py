r"""
Many GANs in one training step.

Networks of one shape are stacked along a new first axis, and one pass serves them all:
linear layers become batched products, convolutions grouped ones, and one update with
coefficients of shape (N, 1, ...) is every optimizer of the wing at once,

.. math::
    m &\leftarrow \beta_1 m + (1 - \delta) g, \qquad
    q \leftarrow \beta_2 q + (1 - \beta_2) g^2, \\
    r &= c_1 m / (\sqrt{c_2 q} + \varepsilon) \;\text{ or }\; r = m, \qquad
    w \leftarrow w - \eta \, ((1 + o) \, r - o \, r_{\text{before}}) .

On a GPU a few iterations become one CUDA graph; on the CPU they are a plain loop.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, leaky_relu, softplus

from lib._backend import as_float_array, check_choice, check_integer, check_real
from lib.games.models import _MapDropout
from lib.games.train import _progress

__all__ = ["STACKED_METHODS", "StackedGAN", "StackedRun"]


class _Method(NamedTuple):
    beta1: float
    beta2: float = 0.999
    optimism: float = 0.0
    adaptive: bool = True
    corrected: bool = True


#: name -> coefficients of the common update.
STACKED_METHODS = {
    "adam-half": _Method(0.5),
    "adam-zero": _Method(0.0),
    "oadam": _Method(0.5, optimism=1.0),
    "oadam-zero": _Method(0.0, optimism=1.0),
    "adam-nm": _Method(-0.5),
    "rmsprop": _Method(0.0, 0.99, corrected=False),
    "rmsprop-short": _Method(0.0, 0.9, corrected=False),
    "sgd": _Method(0.0, adaptive=False),
    "sgd-momentum": _Method(0.9, adaptive=False),
    "sgd-nm": _Method(-0.5, adaptive=False),
}


class StackedRun(NamedTuple):
    """A training of a stack: optimizer, step size, seed, weight of the consensus."""

    method: str
    lr: float
    seed: int
    gamma: float = 0.0


class StackedGAN:
    r"""
    Train many GANs of one shape at once.

    Runs of one seed share initial weights, batches, noise and dropped maps, whatever
    their optimizers. What a run computes does not depend on what it is stacked with,
    but for the rounding of batched products.

    Parameters
    ----------
    make : callable
        ``make(seed)`` returns a generator and a discriminator from ``lib.games``.
    runs : sequence of StackedRun
        The trainings. Methods are the keys of ``STACKED_METHODS``.
    loss : {"ns", "wgan"}, default="ns"
        The game. "ns" halves the discriminator's loss, as the code does that the
        report's numbers come from; with Adam that changes next to nothing.
    n_critic : int, default=1
        Steps of the discriminator for one of the generator.
    clip : float or None, default=None
        Bound of the discriminator's weights.
    consensus : {None, "joint", "own"}, default=None
        Whether both players move at once, by their gradients plus ``gamma`` times that
        of :math:`\|v\|^2 / 2`: "joint" is `ConsensusOptimizer`, and with "own" each
        player is regularised by its own gradient alone, the usual mistake.
    batch_size : int, default=64
        Samples a batch.
    chunk : int, default=10
        Iterations that are drawn, and on a GPU captured, together; a multiple of
        ``n_critic``.
    device : str, default="cpu"
        Where everything lives.
    dtype : torch.dtype, default=torch.float32
        Precision of everything.

    Attributes
    ----------
    iteration : int
        Steps of the discriminator so far.
    history : dict of list
        "iteration", and "loss_d" and "loss_g" with one list over runs a chunk. A run
        whose loss is not finite has NaN from there on and disturbs no other.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If there are no runs, a method is unknown, or a number is out of range.

    See Also
    --------
    GANTrainer : One training, any optimizer, any network.

    Notes
    -----
    The order of [1]_: for "ns" the generator steps first, and the discriminator then
    sees the samples from before that step; for "wgan" the discriminator steps, and
    every ``n_critic``-th time the generator, on the same noise. Batch normalisation
    always uses the batch's own moments, also in `sample`. With a consensus both
    players see the same samples, in one graph and with one set of dropped maps, and no
    loss is halved: there the sizes of the players' losses count.

    Memory is that of N trainings; the number of kernel launches that of one.

    References
    ----------
    .. [1] E. Linder-Noren, PyTorch-GAN, 2018, ``gan.py``, ``dcgan.py``, ``wgan.py``.

    Examples
    --------
    >>> import torch
    >>> from lib.games import StackedGAN, StackedRun, ring_networks
    >>> x = torch.randn(640, 2, generator=torch.Generator().manual_seed(0))
    >>> runs = [StackedRun(name, 1e-3, 0) for name in ("adam-half", "oadam")]
    >>> stack = StackedGAN(lambda seed: ring_networks(generator=seed), runs)
    >>> stack.fit(x, 20, progress=False)["iteration"]
    [10, 20]
    """

    def __init__(
        self,
        make,
        runs,
        loss="ns",
        *,
        n_critic=1,
        clip=None,
        consensus=None,
        batch_size=64,
        chunk=10,
        device="cpu",
        dtype=torch.float32,
    ):
        runs = [StackedRun(*run) for run in runs]
        if not runs:
            raise ValueError("runs must hold at least one training, got none")
        for run in runs:
            check_choice("method", run.method, tuple(STACKED_METHODS))
            check_real("lr", run.lr)
            check_integer("seed", run.seed, minimum=0)
            check_real("gamma", run.gamma, allow_zero=True)
        check_choice("loss", loss, ("ns", "wgan"))
        for name, value in (
            ("n_critic", n_critic),
            ("batch_size", batch_size),
            ("chunk", chunk),
        ):
            check_integer(name, value)
        if chunk % n_critic:
            raise ValueError(
                f"chunk must be a multiple of n_critic={n_critic}, got {chunk}"
            )
        if clip is not None:
            check_real("clip", clip)
        if consensus is not None:
            check_choice("consensus", consensus, ("joint", "own"))
            if n_critic != 1:
                raise ValueError(
                    f"n_critic must be 1 with a consensus, got {n_critic}"
                )
        elif any(run.gamma for run in runs):
            raise ValueError("gamma must be 0 without a consensus")
        self.runs, self.loss, self.n_critic, self.clip = runs, loss, n_critic, clip
        self.consensus, self.batch_size, self.chunk = consensus, batch_size, chunk
        self.device, self.dtype = torch.device(device), dtype
        self.iteration, self.history = 0, {"iteration": [], "loss_d": [], "loss_g": []}
        self._seeds = sorted({run.seed for run in runs})
        pairs = {seed: make(seed) for seed in self._seeds}
        self._latent = pairs[self._seeds[0]][0].latent_dim
        self._players = [
            _Player([pairs[run.seed][k] for run in runs], runs, k == 1, device, dtype)
            for k in (0, 1)
        ]
        self._streams = {
            seed: torch.Generator(self.device).manual_seed(seed) for seed in self._seeds
        }
        self._orders = {seed: [] for seed in self._seeds}
        self._which = torch.tensor(
            [self._seeds.index(run.seed) for run in runs], device=self.device
        )
        self._gamma = torch.tensor(
            [run.gamma for run in runs], device=self.device, dtype=torch.float64
        )
        self._graph = None

    def fit(self, x, iterations, *, callback=None, progress=True):
        """
        Train all runs for a number of iterations more.

        Parameters
        ----------
        x : Tensor or ndarray of shape (n, d) or (n, channels, height, width)
            Real samples; images lie in [-1, 1].
        iterations : int
            Steps of the discriminator, a multiple of ``chunk``.
        callback : callable, optional
            Called with the stack after every chunk.
        progress : bool, default=True
            Whether to show a progress bar.

        Returns
        -------
        dict of list
            The history.

        Raises
        ------
        TypeError
            If the data have a wrong dtype.
        ValueError
            If the data are too few, not finite or images outside [-1, 1], or the
            number is no multiple of ``chunk``.
        """
        x = as_float_array(x, "x", ndim=(2, 4))
        if x.ndim == 4 and abs(x).max() > 1:
            raise ValueError("images in x must lie in [-1, 1]")
        if len(x) < self.batch_size:
            raise ValueError(
                f"x must have at least batch_size={self.batch_size} rows, got {len(x)}"
            )
        check_integer("iterations", iterations)
        if iterations % self.chunk:
            raise ValueError(
                f"iterations must be a multiple of chunk={self.chunk}, got {iterations}"
            )
        x = torch.as_tensor(x).to(self.device, self.dtype)
        with _progress(iterations if progress else 0) as advance:
            for _ in range(iterations // self.chunk):
                self._draw(len(x))
                self._run(x)
                self.iteration += self.chunk
                self.history["iteration"].append(self.iteration)
                names = ("loss_d", "loss_g")
                for name, values in zip(names, self._losses, strict=True):
                    self.history[name].append(values.tolist())
                if callback is not None:
                    callback(self)
                advance(self.chunk)
        return self.history

    @torch.no_grad()
    def sample(self, n, *, seed=0):
        """
        Draw samples from every generator, all from the same noise.

        Parameters
        ----------
        n : int
            Number of samples, rounded up to whole batches of 100.
        seed : int, default=0
            Seed of the noise.

        Returns
        -------
        Tensor of shape (N, n, ...)
            Samples of the N runs.
        """
        check_integer("n", n)
        rng, parts = np.random.default_rng(seed), []
        for _ in range(-(-n // 100)):
            z = torch.from_numpy(rng.standard_normal((100, self._latent)))
            z = z.to(self.device, self.dtype).expand(len(self.runs), -1, -1)
            parts.append(self._players[0](z))
        return torch.cat(parts, dim=1)[:, :n]

    def state_dict(self):
        """
        Copy everything that the next iteration depends on.

        Returns
        -------
        dict
            Weights, states of the optimizers, random streams and history.
        """
        return copy.deepcopy(
            {
                "iteration": self.iteration,
                "history": self.history,
                "players": [player.tensors() for player in self._players],
                "streams": {k: g.get_state() for k, g in self._streams.items()},
                "orders": self._orders,
            }
        )

    def load_state_dict(self, state):
        """
        Go on from a copied state.

        Parameters
        ----------
        state : dict
            What `state_dict` returned, of a stack made with the same arguments.
        """
        state = copy.deepcopy(state)
        self.iteration, self.history = state["iteration"], state["history"]
        self._orders = state["orders"]
        for seed, stream in self._streams.items():
            stream.set_state(state["streams"][seed])
        for player, tensors in zip(self._players, state["players"], strict=True):
            player.restore(tensors)

    # What a chunk consumes, once a seed: rows of the data, noise, and dropped maps.
    def _draw(self, n):
        rows, noise, masks = [], [], []
        for seed in self._seeds:
            stream, order = self._streams[seed], self._orders[seed]
            need = self.chunk * self.batch_size
            while len(order) < need:
                new = torch.randperm(n, generator=stream, device=self.device)
                new = new[: n // self.batch_size * self.batch_size]
                order = torch.cat([order, new]) if len(order) else new
            rows.append(order[:need].view(self.chunk, self.batch_size))
            self._orders[seed] = order[need:].clone()
            options = {"generator": stream, "device": self.device, "dtype": self.dtype}
            shape = (self.chunk, self.batch_size, self._latent)
            noise.append(torch.randn(shape, **options))
            masks.append(
                [
                    (torch.rand(self.chunk, 3, self.batch_size, maps, **options) >= p)
                    .to(self.dtype)
                    .div_(1 - p)
                    for maps, p in self._players[1].dropped
                ]
            )
        fresh = [torch.stack(rows), torch.stack(noise)]
        fresh += [torch.stack(one) for one in zip(*masks, strict=True)]
        if not hasattr(self, "_buffers"):
            self._buffers = fresh
        else:  # a captured graph reads these very tensors
            for old, new in zip(self._buffers, fresh, strict=True):
                old.copy_(new)

    def _run(self, x):
        if self.device.type != "cuda":
            self._losses = self._iterations(x)
            return
        if self._graph is None or self._captured != x.data_ptr():
            self._capture(x)
        self._graph.replay()

    # Warm-up runs change the state, which is put back; the capture itself runs nothing.
    def _capture(self, x):
        before = [[t.clone() for t in player.tensors()] for player in self._players]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._iterations(x)
        torch.cuda.current_stream().wait_stream(side)
        for player, tensors in zip(self._players, before, strict=True):
            player.restore(tensors)
        self._graph, self._x = torch.cuda.CUDAGraph(), x
        self._captured = x.data_ptr()
        with torch.cuda.graph(self._graph):
            self._losses = self._iterations(x)

    def _iterations(self, x):
        G, D = self._players
        rows, noise, *masks = self._buffers
        for i in range(self.chunk):
            real, z = x[rows[:, i]][self._which], noise[:, i][self._which]
            kept = [mask[:, i][self._which] for mask in masks]
            # a pass of the discriminator has masks of its own
            pass_masks = [[mask[:, k] for mask in kept] for k in range(3)]
            fake = G(z)
            if self.consensus:
                real, fake = D(real, pass_masks[1]), D(fake, pass_masks[0])
                loss_d, loss_g = _losses(real, fake, self.loss)
                self._agree(loss_d, loss_g)
                D.clip(self.clip)
                continue
            if self.loss == "ns":
                loss_g = softplus(-D(fake, pass_masks[0])).mean(dim=1)
                G.descend(loss_g)
                fake = fake.detach()
                loss_d = softplus(-D(real, pass_masks[1])).mean(dim=1)
                loss_d = (loss_d + softplus(D(fake, pass_masks[2])).mean(dim=1)) / 2
                D.descend(loss_d)
                D.clip(self.clip)
                continue
            loss_d = D(fake.detach(), pass_masks[2]).mean(dim=1)
            loss_d = loss_d - D(real, pass_masks[1]).mean(dim=1)
            D.descend(loss_d)
            D.clip(self.clip)
            if i % self.n_critic == 0:
                loss_g = -D(fake, pass_masks[0]).mean(dim=1)
                G.descend(loss_g)
        return loss_d.detach(), loss_g.detach()

    # Both players at once: gradients of gradients, of every run with respect to its
    # own weights only.
    def _agree(self, loss_d, loss_g):
        G, D = self._players
        halves, fields = [], []
        for player, loss in ((D, loss_d), (G, loss_g)):
            field = torch.autograd.grad(loss.sum(), player.weights, create_graph=True)
            fields += field
            halves.append(sum(v.square().sum() for v in field) / 2)
        options = {"allow_unused": True, "materialize_grads": True}
        if self.consensus == "joint":
            pull = torch.autograd.grad(sum(halves), D.weights + G.weights, **options)
        else:
            pull = torch.autograd.grad(
                halves[0], D.weights, retain_graph=True, **options
            ) + torch.autograd.grad(halves[1], G.weights, **options)
        with torch.no_grad():
            total = [
                v + self._gamma.to(v.dtype).view(-1, *[1] * (v.ndim - 1)) * p
                for v, p in zip(fields, pull, strict=True)
            ]
        D.move(total[: len(D.weights)])
        G.move(total[len(D.weights) :])


# The losses of both players, one of every run.
def _losses(real, fake, loss):
    if loss == "wgan":
        return fake.mean(dim=1) - real.mean(dim=1), -fake.mean(dim=1)
    loss_d = softplus(-real).mean(dim=1) + softplus(fake).mean(dim=1)
    return loss_d, softplus(-fake).mean(dim=1)


# One player of every run: stacked weights, its layers, and the optimizers' state.
class _Player:
    def __init__(self, networks, runs, scores, device, dtype):
        self.layers, self.scores = list(networks[0].layers), scores
        self.dropped = [
            (self._maps_before(k), layer.p)
            for k, layer in enumerate(self.layers)
            if isinstance(layer, _MapDropout)
        ]
        stacks = zip(*(network.parameters() for network in networks), strict=True)
        self.weights = [
            torch.stack([one.detach() for one in stack])
            .to(device, dtype)
            .requires_grad_()
            for stack in stacks
        ]
        self.state = [
            [torch.zeros_like(w, requires_grad=False) for _ in range(3)]
            for w in self.weights
        ]
        self.count = torch.zeros(len(runs), device=device, dtype=torch.float64)
        methods = [STACKED_METHODS[run.method] for run in runs]

        def column(values, kind=torch.float64):
            return torch.tensor(list(values), device=device, dtype=kind)

        self.beta1, self.beta2, self.optimism = (
            column(getattr(m, name) for m in methods)
            for name in ("beta1", "beta2", "optimism")
        )
        self.adaptive, self.corrected = (
            column((getattr(m, name) for m in methods), torch.bool)
            for name in ("adaptive", "corrected")
        )
        self.lr = column(run.lr for run in runs)

    def _maps_before(self, k):
        convolutions = (m for m in self.layers[:k] if isinstance(m, nn.Conv2d))
        return list(convolutions)[-1].out_channels

    def tensors(self):
        flat = [one for three in self.state for one in three]
        return [w.detach() for w in self.weights] + flat + [self.count]

    @torch.no_grad()
    def restore(self, tensors):
        for old, new in zip(self.tensors(), tensors, strict=True):
            old.copy_(new)

    # Samples come as (N, batch, ...); images live as (batch, N * maps, height, width)
    # between the convolutions.
    def __call__(self, x, masks=()):
        rest, masks = iter(self.weights), iter(masks)
        N = len(self.lr)
        if x.ndim == 5:
            x = x.transpose(0, 1).flatten(1, 2)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                weight, bias = next(rest), next(rest)
                x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            elif isinstance(layer, nn.Conv2d):
                weight, bias = next(rest).flatten(0, 1), next(rest).flatten()
                stride, padding = layer.stride, layer.padding
                x = conv2d(x, weight, bias, stride, padding, groups=N)
            elif isinstance(layer, nn.BatchNorm1d):
                x = _normalise(x, 1, next(rest)[:, None], next(rest)[:, None], layer)
            elif isinstance(layer, nn.BatchNorm2d):
                scale, shift = (next(rest).view(1, -1, 1, 1) for _ in range(2))
                x = _normalise(x, (0, 2, 3), scale, shift, layer)
            elif isinstance(layer, nn.Unflatten):
                x = x.unflatten(2, layer.unflattened_size)
                if layer is not self.layers[-1] and x.ndim == 5:
                    x = x.transpose(0, 1).flatten(1, 2)
            elif isinstance(layer, nn.Flatten):
                if x.ndim == 4:
                    x = x.unflatten(1, (N, -1)).transpose(0, 1)
                x = x.flatten(2)
            elif isinstance(layer, _MapDropout):
                x = x * next(masks).transpose(0, 1).flatten(1)[:, :, None, None]
            elif isinstance(layer, nn.LeakyReLU):
                x = leaky_relu(x, layer.negative_slope)
            else:
                x = layer(x)
        if isinstance(self.layers[-1], nn.Tanh) and x.ndim == 4:
            return x.unflatten(1, (N, -1)).transpose(0, 1)
        return x[:, :, 0] if self.scores else x

    # Every loss depends on its own run's weights only, so the gradient of the sum is
    # every run's own.
    def descend(self, losses):
        self.move(torch.autograd.grad(losses.sum(), self.weights))

    def move(self, gradients):
        with torch.no_grad():
            self.count += 1
            one = torch.ones_like(self.beta1)
            c1 = torch.where(self.corrected, 1 - self.beta1**self.count, one)
            c2 = torch.where(self.corrected, 1 - self.beta2**self.count, one)
            gain = torch.where(self.adaptive, 1 - self.beta1, one)
            for w, g, (m, q, before) in zip(
                self.weights, gradients, self.state, strict=True
            ):
                shape = (-1, *[1] * (w.ndim - 1))
                b1, b2, k, a, b, o, lr = (
                    v.to(w.dtype).view(shape)
                    for v in (
                        self.beta1,
                        self.beta2,
                        gain,
                        c1,
                        c2,
                        self.optimism,
                        self.lr,
                    )
                )
                m.mul_(b1).add_(k * g)
                q.mul_(b2).add_((1 - b2) * g * g)
                adaptive = (m / a) / ((q / b).sqrt() + 1e-8)
                r = torch.where(self.adaptive.view(shape), adaptive, m)
                w.sub_(lr * ((1 + o) * r - o * before))
                before.copy_(r)

    @torch.no_grad()
    def clip(self, bound):
        if bound is not None:
            for w in self.weights:
                w.clamp_(-bound, bound)


def _normalise(x, axes, scale, shift, layer):
    x = x - x.mean(dim=axes, keepdim=True)
    variance = x.square().mean(dim=axes, keepdim=True)
    return x * torch.rsqrt(variance + layer.eps) * scale + shift
