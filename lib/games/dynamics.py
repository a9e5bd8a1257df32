r"""
Differentiable games and the discrete dynamics of gradient methods on them.

Every player i owns a block :math:`w_i` of :math:`w` and minimises a loss of its own.
The *field* of a game stacks what the players would descend,

.. math:: v(w) = (\nabla_{w_1} L_1(w), \nabla_{w_2} L_2(w), \dots),

and a fixed point :math:`v(w^*) = 0` attracts the small steps :math:`w - \eta v(w)`
if and only if every eigenvalue of :math:`\nabla v(w^*)` has a positive real part.
"""

import math
import numbers
import sys
from typing import NamedTuple

import numpy as np

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    is_torch,
    to_numpy,
)

__all__ = [
    "BilinearGame",
    "DiracGAN",
    "Game",
    "QuadraticGame",
    "Trajectory",
    "module_game",
    "simulate",
]

METHODS = ("gd", "ogda", "extragradient", "momentum", "consensus")
UPDATES = ("simultaneous", "alternating")


class Trajectory(NamedTuple):
    r"""
    What `simulate` saw: row t of every field belongs to the iterate after t steps.

    Attributes
    ----------
    w : ndarray or Tensor of shape (n_steps + 1, n)
        Iterates, the start first.
    field_norm : ndarray or Tensor of shape (n_steps + 1,)
        :math:`\|v(w_t)\|`.
    average : ndarray or Tensor of shape (n_steps + 1, n)
        :math:`(w_0 + \dots + w_t) / (t + 1)`.

    Notes
    -----
    A plain record; building it costs nothing.

    References
    ----------
    .. [1] C. Daskalakis, A. Ilyas, V. Syrgkanis and H. Zeng, "Training GANs with
       optimism", ICLR 2018: last iterate against average.

    Examples
    --------
    >>> from lib.games import BilinearGame, simulate
    >>> simulate(BilinearGame([[1.0]]), [1.0, 0.0], "gd", 0.1, 3).w.shape
    (4, 2)
    """

    w: object
    field_norm: object
    average: object


class Game:
    r"""
    A differentiable game, given by one loss for each player.

    Parameters
    ----------
    losses : sequence of callable
        ``losses[i](blocks)`` returns the loss of player i as a scalar tensor, from
        the list of all blocks. Every player minimises; a zero-sum game has the
        losses f and -f.
    shapes : sequence of tuple of int
        Shape of each player's block; ``()`` is a single number.

    Attributes
    ----------
    sizes : tuple of int
        Number of parameters of each player.
    n : int
        Number of all parameters.

    Raises
    ------
    TypeError
        If a loss is not callable.
    ValueError
        If there is no player, or not one shape for each.

    Notes
    -----
    Points are flat vectors :math:`w` of length n, the blocks in order. Numpy in,
    numpy out; tensors keep their dtype and device. A field costs one gradient per
    player, a Jacobian n gradients of it and :math:`n^2` numbers.

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, Section 2.
    .. [2] L. Mescheder, S. Nowozin and A. Geiger, "The numerics of GANs", NeurIPS
       2017, Section 2.

    Examples
    --------
    >>> from lib.games import Game
    >>> def f(blocks):
    ...     return blocks[0] * blocks[1]
    >>> game = Game([f, lambda blocks: -f(blocks)], [(), ()])
    >>> print(game.field([2.0, 3.0]))
    [ 3. -2.]
    >>> print(game.spectrum([0.0, 0.0]).imag)
    [-1.  1.]
    """

    def __init__(self, losses, shapes):
        losses = tuple(losses)
        if not all(map(callable, losses)):
            raise TypeError(f"losses must hold callables only, got {losses!r}")
        shapes = tuple(tuple(shape) for shape in shapes)
        if not losses or len(losses) != len(shapes):
            raise ValueError(
                "losses and shapes must have one entry a player and at least one, "
                f"got {len(losses)} and {len(shapes)}"
            )
        self.losses = losses
        self.shapes = shapes
        self.sizes = tuple(math.prod(shape) for shape in shapes)
        self.n = sum(self.sizes)

    def field(self, w):
        r"""
        Stack the gradients of the players' losses in their own parameters.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            :math:`v(w)`.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n, or a loss is no scalar.
        """
        w = self._point(w)
        return self._like(_flat(self._gradients(self._blocks(w))), w)

    def jacobian(self, w):
        r"""
        Differentiate the field.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.

        Returns
        -------
        ndarray or Tensor of shape (n, n)
            :math:`\nabla v(w)`, row i the gradient of the i-th entry of the field.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n, or a loss is no scalar.
        """
        w = self._point(w)
        blocks = self._blocks(w)
        v = _flat(self._gradients(blocks, create_graph=True))
        rows = [_flat(_derivative(entry, blocks, retain_graph=True)) for entry in v]
        return self._like(sys.modules["torch"].stack(rows), w)

    def spectrum(self, w):
        r"""
        Give the eigenvalues of the Jacobian.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.

        Returns
        -------
        complex ndarray or Tensor of shape (n,)
            Eigenvalues, sorted by real and then by imaginary part.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n, or a loss is no scalar.
        """
        J = self.jacobian(w)
        eigs = np.sort_complex(np.linalg.eigvals(to_numpy(J)))
        if not is_torch(J):
            return eigs
        return sys.modules["torch"].from_numpy(eigs).to(J.device)

    def hamiltonian(self, w):
        r"""
        Give half the squared norm of the field, which vanishes at fixed points only.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.

        Returns
        -------
        float or Tensor
            :math:`\frac12 \|v(w)\|^2`.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n, or a loss is no scalar.
        """
        v = self.field(w)
        return 0.5 * (v @ v)

    def is_stable(self, w, *, tol=1e-8):
        r"""
        Tell whether small gradient steps of all players converge to this point.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.
        tol : float, default=1e-8
            What counts as zero: for the norm of the field, and for real parts in
            units of the largest modulus of an eigenvalue.

        Returns
        -------
        bool
            Whether :math:`v(w) = 0` and all real parts of the spectrum are positive.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n, or a loss is no scalar.
        """
        check_real("tol", tol, allow_zero=True)
        if not np.linalg.norm(to_numpy(self.field(w))) <= tol:
            return False
        eigs = to_numpy(self.spectrum(w))
        return bool((eigs.real > tol * np.abs(eigs).max()).all())

    def is_local_nash(self, w, *, strict=False, tol=1e-8):
        r"""
        Tell whether no player gains by a small change of its own parameters.

        Decided by the first two derivatives: the field vanishes, and the Hessian of
        each loss in the player's own block is positive semidefinite, which is
        necessary, or with ``strict`` positive definite, which is sufficient. For
        quadratic losses the weak form is exact.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.
        strict : bool, default=False
            Ask for positive definite blocks.
        tol : float, default=1e-8
            What counts as zero: for the norm of the field, and for eigenvalues in
            units of the largest entry of the Jacobian.

        Returns
        -------
        bool
            The answer.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n, or a loss is no scalar.
        """
        check_real("tol", tol, allow_zero=True)
        if not np.linalg.norm(to_numpy(self.field(w))) <= tol:
            return False
        J = to_numpy(self.jacobian(w))
        zero = tol * np.abs(J).max()
        lowest = min(np.linalg.eigvalsh(J[s, s])[0] for s in self._slices())
        return bool(lowest > zero if strict else lowest >= -zero)

    # Gradient of the Hamiltonian, by a second backward pass through the field.
    def _hamiltonian_gradient(self, w):
        w = self._point(w)
        blocks = self._blocks(w)
        v = _flat(self._gradients(blocks, create_graph=True))
        return self._like(_flat(_derivative(0.5 * (v @ v), blocks)), w)

    def _point(self, w):
        w = as_float_array(w, "w", ndim=1)
        if w.shape[0] != self.n:
            raise ValueError(
                f"w must have {self.n} entries, {self.sizes} a player, "
                f"got {w.shape[0]}"
            )
        return w

    def _slices(self):
        ends = np.cumsum(self.sizes)
        return [slice(e - k, e) for e, k in zip(ends, self.sizes, strict=True)]

    # The players' blocks as leaves of a new graph.
    def _blocks(self, w):
        import torch

        w = w.detach() if is_torch(w) else torch.from_numpy(np.array(w))
        return [
            w[s].reshape(shape).clone().requires_grad_()
            for s, shape in zip(self._slices(), self.shapes, strict=True)
        ]

    def _gradients(self, blocks, create_graph=False):
        gradients = []
        for i, (loss, block) in enumerate(zip(self.losses, blocks, strict=True)):
            value = loss(blocks)
            if not is_torch(value) or value.numel() != 1:
                what = tuple(value.shape) if is_torch(value) else type(value).__name__
                raise ValueError(f"losses[{i}] must return a scalar tensor, got {what}")
            gradients += _derivative(value.sum(), [block], create_graph=create_graph)
        return gradients

    @staticmethod
    def _like(result, w):
        return result.detach() if is_torch(w) else result.detach().numpy()


# Derivatives of a scalar, zeros where it does not depend on a block.
def _derivative(value, blocks, **options):
    torch = sys.modules["torch"]
    if not value.requires_grad:
        return [torch.zeros_like(block) for block in blocks]
    return torch.autograd.grad(value, blocks, materialize_grads=True, **options)


def _flat(blocks):
    return sys.modules["torch"].cat([block.reshape(-1) for block in blocks])


class QuadraticGame(Game):
    r"""
    The game with a linear field :math:`v(w) = M w`.

    Player i minimises :math:`\frac12 w_i^\top M_{ii} w_i + \sum_{j \ne i} w_i^\top
    M_{ij} w_j`. With one coordinate a player, any square matrix is a game.

    Parameters
    ----------
    M : array-like of shape (n, n)
        Jacobian of the field.
    sizes : sequence of int, optional
        Number of coordinates of each player; by default each has one.

    Attributes
    ----------
    M : ndarray of shape (n, n)
        The Jacobian, in float64.

    Raises
    ------
    ValueError
        If ``M`` is not square, the sizes do not add up to n, or a player's own block
        is not symmetric: such a field is no gradient.

    Notes
    -----
    A field costs :math:`n^2` operations and needs no torch where ``w`` is numpy.
    Every game is this one near a fixed point, up to second order.

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, Section 2.

    Examples
    --------
    A stable point that is no Nash equilibrium: player 1 sits on a maximum.

    >>> from lib.games import QuadraticGame
    >>> game = QuadraticGame([[-1.0, 2.0], [-2.0, 3.0]])
    >>> game.is_stable([0.0, 0.0]), game.is_local_nash([0.0, 0.0])
    (True, False)
    """

    def __init__(self, M, sizes=None):
        M = np.array(to_numpy(as_float_array(M, "M")), dtype=np.float64)
        n = M.shape[0]
        if M.shape != (n, n) or n == 0:
            raise ValueError(f"M must be a square matrix, got shape {M.shape}")
        sizes = (1,) * n if sizes is None else tuple(sizes)
        for size in sizes:
            check_integer("sizes", size)
        if sum(sizes) != n:
            raise ValueError(f"sizes must add up to {n}, got {sizes}")
        self.M = M
        losses = [self._loss(i) for i in range(len(sizes))]
        super().__init__(losses, [(size,) for size in sizes])
        for i, s in enumerate(self._slices()):
            if not np.allclose(M[s, s], M[s, s].T, rtol=1e-12, atol=0):
                raise ValueError(
                    f"M must have a symmetric block for player {i}, got {M[s, s]}"
                )

    def _loss(self, i):
        def loss(blocks):
            own, s = blocks[i], self._slices()
            torch = sys.modules["torch"]
            value = -0.5 * own @ (torch.as_tensor(self.M[s[i], s[i]]).to(own) @ own)
            for j, other in enumerate(blocks):
                M = torch.as_tensor(self.M[s[i], s[j]]).to(own)
                value = value + own @ (M @ other)
            return value

        return loss

    def field(self, w):
        r"""
        Multiply by M.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            :math:`v(w) = M w`.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n.
        """
        w = self._point(w)
        return self._matrix(w) @ w

    def jacobian(self, w):
        r"""
        Give M, whatever the point.

        Parameters
        ----------
        w : array-like or Tensor of shape (n,)
            Point; only its kind matters.

        Returns
        -------
        ndarray or Tensor of shape (n, n)
            A copy of M.

        Raises
        ------
        ValueError
            If ``w`` is no finite vector of length n.
        """
        M = self._matrix(self._point(w))
        return M.clone() if is_torch(M) else M.copy()

    def _hamiltonian_gradient(self, w):
        M = self._matrix(w)
        return M.T @ (M @ w)

    def _matrix(self, w):
        if is_torch(w):
            return sys.modules["torch"].as_tensor(self.M).to(w)
        return self.M.astype(w.dtype, copy=False)


class BilinearGame(QuadraticGame):
    r"""
    Two players of :math:`f(x, y) = x^\top A y`, x minimises and y maximises.

    With regularisation

    .. math::
        f(x, y) = x^\top A y + \frac12 x^\top C_x x - \frac12 y^\top C_y y,
        \qquad \nabla v = \begin{pmatrix} C_x & A \\ -A^\top & C_y \end{pmatrix}.

    Without it the eigenvalues are :math:`\pm i \sigma` for the singular values
    :math:`\sigma` of A, and zeros if A is not square: nothing but rotation.

    Parameters
    ----------
    A : array-like of shape (p, q)
        Interaction.
    Cx : array-like of shape (p, p), optional
        Symmetric curvature of the minimising player, zero by default.
    Cy : array-like of shape (q, q), optional
        Symmetric curvature of the maximising player, zero by default.

    Raises
    ------
    ValueError
        If shapes do not fit or a curvature is not symmetric.

    Notes
    -----
    A field costs O(p q) operations.

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, Section 5.

    Examples
    --------
    >>> from lib.games import BilinearGame
    >>> print(BilinearGame([[2.0]]).spectrum([0.0, 0.0]).imag)
    [-2.  2.]
    """

    def __init__(self, A, Cx=None, Cy=None):
        A = to_numpy(as_float_array(A, "A"))
        own = []
        for name, C, size in (("Cx", Cx, A.shape[0]), ("Cy", Cy, A.shape[1])):
            C = np.zeros((size, size)) if C is None else as_float_array(C, name)
            C = to_numpy(C)
            if C.shape != (size, size):
                raise ValueError(
                    f"{name} must have the shape {(size, size)}, got {C.shape}"
                )
            own.append(C)
        super().__init__(np.block([[own[0], A], [-A.T, own[1]]]), sizes=A.shape)

    # The value f of both players for the first, -f for the second: a zero-sum game.
    def _loss(self, i):
        def loss(blocks):
            x, y = blocks
            rows, columns = self._slices()
            Cx, A = self._matrix(x)[rows].split(self.sizes, dim=1)
            Cy = self._matrix(y)[columns, columns]
            f = x @ (A @ y) + 0.5 * x @ (Cx @ x) - 0.5 * y @ (Cy @ y)
            return f if i == 0 else -f

        return loss


class DiracGAN(Game):
    r"""
    The smallest GAN: all data at 0, all samples at theta, a linear discriminator.

    The logit of x is :math:`\varphi x`. With :math:`w = (\varphi, \theta)`,

    .. math:: L_D = \log(1 + e^{\varphi \theta}) + \frac{r}{2} \varphi^2, \qquad
        L_G = -\log(1 + e^{\varphi \theta}).

    At 0, its only fixed point, the eigenvalues are
    :math:`\frac12 (r \pm \sqrt{r^2 - 1})`.

    Parameters
    ----------
    reg : float, default=0.0
        Weight r >= 0 of the gradient penalty (R1), here
        :math:`\frac{r}{2} \varphi^2`.

    Raises
    ------
    ValueError
        If ``reg`` is negative or not finite.

    Notes
    -----
    A field costs a few operations.

    References
    ----------
    .. [1] L. Mescheder, A. Geiger and S. Nowozin, "Which training methods for GANs
       do actually converge?", ICML 2018, Section 2.

    Examples
    --------
    >>> from lib.games import DiracGAN
    >>> print(DiracGAN().spectrum([0.0, 0.0]).imag)
    [-0.5  0.5]
    >>> DiracGAN(reg=0.3).is_stable([0.0, 0.0])
    True
    """

    def __init__(self, reg=0.0):
        check_real("reg", reg, allow_zero=True)
        self.reg = float(reg)

        def value(blocks):
            return sys.modules["torch"].nn.functional.softplus(blocks[0] * blocks[1])

        def discriminator(blocks):
            return value(blocks) + 0.5 * self.reg * blocks[0] ** 2

        super().__init__([discriminator, lambda blocks: -value(blocks)], [(), ()])


def module_game(modules, losses):
    r"""
    Make a game of torch modules, one a player.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        The players; the block of player i holds the parameters of ``modules[i]`` in
        the order of ``parameters()``.
    losses : sequence of callable
        ``losses[i](calls)`` returns the loss of player i as a scalar tensor;
        ``calls[j]`` is the forward pass of module j with the parameters of the point.

    Returns
    -------
    Game
        The game; the parameters of all modules in one vector, in their order, are
        the point where they stand now. The modules themselves are never changed.

    Raises
    ------
    ValueError
        If there is not one loss a module, or a module has no parameters.

    Notes
    -----
    A field costs one backward pass a player; buffers stay as they are, so put modules
    with running statistics or dropout into evaluation mode.

    References
    ----------
    .. [1] L. Mescheder, S. Nowozin and A. Geiger, "The numerics of GANs", NeurIPS
       2017, Section 2.

    Examples
    --------
    >>> import torch
    >>> from lib.games import module_game
    >>> players = [torch.nn.Linear(1, 1, bias=False) for _ in range(2)]
    >>> x = torch.ones(1, 1)
    >>> f = lambda calls: (calls[0](x) * calls[1](x)).sum()
    >>> game = module_game(players, [f, lambda calls: -f(calls)])
    >>> game.field(torch.tensor([2.0, 3.0]))
    tensor([ 3., -2.])
    """
    import torch

    modules, losses = tuple(modules), tuple(losses)
    layouts = [[(k, p.shape) for k, p in m.named_parameters()] for m in modules]
    for i, layout in enumerate(layouts):
        if not layout:
            raise ValueError(f"modules must have parameters, got none in modules[{i}]")

    def bind(module, layout, block):
        parts = block.split([shape.numel() for _, shape in layout])
        values = {
            key: part.view(shape)
            for (key, shape), part in zip(layout, parts, strict=True)
        }

        def call(*args, **kwargs):
            return torch.func.functional_call(module, values, args, kwargs)

        return call

    def on_modules(loss):
        return lambda blocks: loss(
            [bind(*one) for one in zip(modules, layouts, blocks, strict=True)]
        )

    shapes = [(sum(shape.numel() for _, shape in layout),) for layout in layouts]
    return Game([on_modules(loss) for loss in losses], shapes)


# The numbers of a method, checked: momentum a player, optimism, gamma.
def _check_method(
    players, method, lr, update, *, momentum=0.0, optimism=1.0, gamma=0.0
):
    check_choice("method", method, METHODS)
    check_choice("update", update, UPDATES)
    check_real("lr", lr, allow_zero=True)
    if update == "alternating" and method in ("extragradient", "consensus"):
        raise ValueError(
            "update must be 'simultaneous' for method='extragradient' and "
            f"'consensus', got {update!r}: both look at one common point"
        )
    momentum = tuple(momentum) if np.ndim(momentum) else (momentum,) * players
    if len(momentum) != players:
        raise ValueError(
            f"momentum must be a number or one for each of the {players} players, "
            f"got {momentum!r}"
        )
    for beta in momentum:
        if isinstance(beta, bool) or not isinstance(beta, numbers.Real):
            raise TypeError(f"momentum must be real numbers in (-1, 1), got {beta!r}")
        if not -1 < beta < 1:
            raise ValueError(f"momentum must lie in (-1, 1), got {beta!r}")
    check_real("optimism", optimism, allow_zero=True)
    check_real("gamma", gamma, allow_zero=True)
    for name, given, owner in (
        ("momentum", any(momentum), "momentum"),
        ("optimism", optimism != 1, "ogda"),
        ("gamma", gamma != 0, "consensus"),
    ):
        if given and method != owner:
            raise ValueError(f"{name} belongs to method={owner!r}, got {method!r}")
    return momentum, optimism if method == "ogda" else 0.0, gamma


def simulate(
    game,
    w0,
    method,
    lr,
    n_steps,
    *,
    update="simultaneous",
    momentum=0.0,
    optimism=1.0,
    gamma=0.0,
):
    r"""
    Run a gradient method of all players, with exact gradients.

    With :math:`g_t = v(w_t)` and the step size :math:`\eta`, the next point is

    .. math::
        \text{gd} &: w_t - \eta g_t, \\
        \text{momentum} &: w_t - \eta g_t + \beta (w_t - w_{t-1}),
        \quad w_{-1} = w_0, \\
        \text{ogda} &: w_t - \eta [(1 + o) g_t - o g_{t-1}],
        \quad g_{-1} = g_0, \\
        \text{extragradient} &: w_t - \eta v(w_t - \eta g_t), \\
        \text{consensus} &: w_t - \eta (g_t + \gamma \nabla v(w_t)^\top g_t).

    With alternating updates the players move one after the other, each at the point
    to which those before it have already moved.

    Parameters
    ----------
    game : Game
        The game.
    w0 : array-like or Tensor of shape (n,)
        Start.
    method : {"gd", "ogda", "extragradient", "momentum", "consensus"}
        The method.
    lr : float
        Step size eta >= 0.
    n_steps : int
        Number of steps, each of all players.
    update : {"simultaneous", "alternating"}, default="simultaneous"
        Whether players move at once; "extragradient" and "consensus" must.
    momentum : float or sequence of float, default=0.0
        Momentum beta in (-1, 1), one for all players or one for each.
    optimism : float, default=1.0
        Weight o >= 0 of the last change of the gradient.
    gamma : float, default=0.0
        Weight of the gradient of the Hamiltonian.

    Returns
    -------
    Trajectory
        Iterates, norms of the field and running averages. After an overflow the
        rows are NaN.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, or belongs to another method.

    Notes
    -----
    A step costs one field (extragradient two, consensus one and a second backward
    pass, alternating one a player); memory is O(n n_steps).

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, equation 11.
    .. [2] L. Mescheder, S. Nowozin and A. Geiger, "The numerics of GANs", NeurIPS
       2017, Algorithm 2.
    .. [3] C. Daskalakis, A. Ilyas, V. Syrgkanis and H. Zeng, "Training GANs with
       optimism", ICLR 2018, equation 2.

    Examples
    --------
    >>> from lib.games import BilinearGame, simulate
    >>> game = BilinearGame([[1.0]])
    >>> for update in ("simultaneous", "alternating"):
    ...     path = simulate(game, [1.0, 0.0], "gd", 0.1, 1000, update=update)
    ...     print(f"{update} {path.field_norm[-1]:.3f}")
    simultaneous 144.773
    alternating 0.980
    """
    if not isinstance(game, Game):
        raise TypeError(f"game must be a Game, got {type(game).__name__}")
    check_integer("n_steps", n_steps, minimum=0)
    momentum, o, gamma = _check_method(
        len(game.sizes),
        method,
        lr,
        update,
        momentum=momentum,
        optimism=optimism,
        gamma=gamma,
    )
    w = game._point(w0)
    w = w.detach().clone() if is_torch(w) else w.copy()
    beta = np.repeat(np.asarray(momentum, dtype=np.float64), game.sizes)
    beta = w.new_tensor(beta) if is_torch(w) else beta.astype(w.dtype)
    blocks = game._slices() if update == "alternating" else [slice(None)]
    before, last, v = w, None, game.field(w)
    path, norms = [w], [_norm(v)]
    for _ in range(n_steps):
        # An overflow ends the run and is no cause for a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            if method == "extragradient":
                new = w - lr * _field(game, w - lr * v)
            elif method == "consensus":
                new = w - lr * (v + gamma * game._hamiltonian_gradient(w))
            else:
                new, g = w + beta * (w - before), v + 0
                here = w + 0
                for k, block in enumerate(blocks):
                    if k:
                        g[block] = _field(game, here)[block]
                    old = g if last is None else last
                    step = (1 + o) * g[block] - o * old[block]
                    new[block] = new[block] - lr * step
                    here[block] = new[block]
                last = g
            if not _finite(new):
                break
            v = game.field(new)
            norm = _norm(v)
        if not _finite(norm):
            break
        before, w = w, new
        path.append(w)
        norms.append(norm)
    return _trajectory(path, norms, n_steps + 1)


# NaN where a point in the middle of a step has overflowed.
def _field(game, w):
    return game.field(w) if _finite(w) else w * math.nan


def _norm(v):
    if is_torch(v):
        return v.norm()
    with np.errstate(over="ignore"):
        return np.linalg.norm(v)


def _finite(x):
    return bool((x.isfinite() if is_torch(x) else np.isfinite(x)).all())


# Stack rows, pad with NaN what was not reached, and average.
def _trajectory(path, norms, rows):
    missing = rows - len(path)
    if is_torch(path[0]):
        torch = sys.modules["torch"]
        w, norm = torch.stack(path), torch.stack(norms)
        w = torch.cat([w, w.new_full((missing, w.shape[1]), math.nan)])
        norm = torch.cat([norm, norm.new_full((missing,), math.nan)])
        count = torch.arange(1, rows + 1).to(w)[:, None]
        return Trajectory(w, norm, w.cumsum(0) / count)
    w, norm = np.stack(path), np.stack(norms)
    w = np.concatenate([w, np.full((missing, w.shape[1]), np.nan, w.dtype)])
    norm = np.concatenate([norm, np.full(missing, np.nan, norm.dtype)])
    count = np.arange(1, rows + 1, dtype=w.dtype)[:, None]
    return Trajectory(w, norm, np.cumsum(w, axis=0) / count)
