"""Optimizers for games: closed forms, recursions written apart, peers, refusals."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.games import (
    OGDA,
    ConsensusOptimizer,
    ExtraAdam,
    ExtraSGD,
    MomentumSGD,
    OptimisticAdam,
    SignedMomentumAdam,
)

FLOAT = torch.float64


def tensor(values, **options):
    return torch.tensor(values, dtype=FLOAT, **options).requires_grad_()


# ---- recursions as the papers print them, for one number -----------------------------


def adam_directions(grads, beta1, beta2, eps):
    """Kingma and Ba's Algorithm 1: m, v, and both corrected when they are used."""
    m = v = 0.0
    out = []
    for t, g in enumerate(grads, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        out.append(m_hat / (math.sqrt(v_hat) + eps))
    return out


def ogda_path(w, grads, lr, optimism=1.0):
    previous, path = grads[0], []
    for g in grads:
        w = w - lr * (1 + optimism) * g + lr * optimism * previous
        previous = g
        path.append(w)
    return path


def momentum_path(w, grads, lr, momentum):
    """The heavy ball: w + momentum (w - w_before) - lr g."""
    before, path = w, []
    for g in grads:
        w, before = w - lr * g + momentum * (w - before), w
        path.append(w)
    return path


def adam_path(w, grads, lr, betas, eps):
    path = []
    for r in adam_directions(grads, *betas, eps):
        w = w - lr * r
        path.append(w)
    return path


def optimistic_adam_path(w, grads, lr, betas, eps, optimism=1.0, first="zero"):
    """Daskalakis et al., Algorithm 1: every direction with its own corrections."""
    r = adam_directions(grads, *betas, eps)
    previous, path = (0.0 if first == "zero" else r[0]), []
    for now in r:
        w = w - (1 + optimism) * lr * now + optimism * lr * previous
        previous = now
        path.append(w)
    return path


GRADS = np.random.default_rng(5).standard_normal((3, 25)).tolist()
START = [0.7, -1.2, 0.1]
EPS = 0.02  # large enough to tell an eps inside the root from one outside

FED = [
    (lambda p, **k: OGDA(p, 0.1, **k), lambda w, g: ogda_path(w, g, 0.1)),
    (lambda p, **k: OGDA(p, 0.1, optimism=0.3, **k),
     lambda w, g: ogda_path(w, g, 0.1, 0.3)),
    (lambda p, **k: MomentumSGD(p, 0.1, -0.7, **k),
     lambda w, g: momentum_path(w, g, 0.1, -0.7)),
    (lambda p, **k: MomentumSGD(p, 0.1, **k), lambda w, g: momentum_path(w, g, 0.1, 0)),
    (lambda p, **k: SignedMomentumAdam(p, 0.1, (-0.5, 0.9), EPS, **k),
     lambda w, g: adam_path(w, g, 0.1, (-0.5, 0.9), EPS)),
    (lambda p, **k: SignedMomentumAdam(p, 0.1, (0.9, 0.0), EPS, **k),
     lambda w, g: adam_path(w, g, 0.1, (0.9, 0.0), EPS)),
    (lambda p, **k: OptimisticAdam(p, 0.1, (0.5, 0.9), EPS, **k),
     lambda w, g: optimistic_adam_path(w, g, 0.1, (0.5, 0.9), EPS)),
    (lambda p, **k: OptimisticAdam(
        p, 0.1, (-0.3, 0.99), EPS, optimism=0.4, first_step="repeat", **k),
     lambda w, g: optimistic_adam_path(
         w, g, 0.1, (-0.3, 0.99), EPS, 0.4, "repeat")),
]  # fmt: skip
each_fed = pytest.mark.parametrize("pair", FED, ids=range(len(FED)))


def feed(optimizer, params, grads):
    """Step with given gradients, one list of numbers a parameter; the path of each."""
    path = []
    for step in zip(*grads, strict=True):
        for p, g in zip(params, step, strict=True):
            p.grad = torch.full_like(p, g)
        optimizer.step()
        path.append([p.item() for p in params])
    return np.array(path).T


@each_fed
@pytest.mark.parametrize("foreach", [False, True])
def test_path_is_that_of_the_printed_recursion(pair, foreach):
    make, recursion = pair
    params = [tensor(w) for w in START]
    path = feed(make(params, foreach=foreach), params, GRADS)
    expected = [recursion(w, g) for w, g in zip(START, GRADS, strict=True)]
    np.testing.assert_allclose(path, expected, rtol=1e-12, atol=1e-13)


@each_fed
def test_weight_decay_is_a_part_of_the_gradient_that_is_not_maximised(pair):
    make, recursion = pair
    for maximize in (False, True):
        p, q = tensor(0.7), tensor(0.7)
        decayed = make([p], weight_decay=0.3, maximize=maximize)
        plain = make([q])
        for g in GRADS[0]:
            p.grad, q.grad = tensor(g), None
            sign = -1.0 if maximize else 1.0
            q.grad = (sign * p.grad + 0.3 * q).detach()
            decayed.step()
            plain.step()
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


@each_fed
def test_gradients_are_copied_not_kept(pair):
    # a reference to p.grad turns the optimistic gradient into gradient descent as soon
    # as gradients are zeroed and accumulated in place
    make, _ = pair
    ends = []
    for set_to_none in (True, False):
        params = [tensor([1.0, -0.5]), tensor([0.3])]
        optimizer = make(params)
        for _ in range(15):
            optimizer.zero_grad(set_to_none=set_to_none)
            ((params[0] ** 2).sum() + params[0].sum() * params[1].sum()).backward()
            optimizer.step()
        ends.append(torch.cat([p.detach() for p in params]))
        for p in params:
            storage = p.grad.untyped_storage().data_ptr()
            for value in optimizer.state[p].values():
                if torch.is_tensor(value):
                    assert value.untyped_storage().data_ptr() != storage
    assert torch.equal(*ends)


@each_fed
@pytest.mark.parametrize("foreach", [False, True])
def test_a_late_parameter_starts_fresh_and_a_gap_is_skipped(pair, foreach):
    make, recursion = pair
    a, b = tensor(0.7), tensor(-1.2)
    optimizer = make([a, b], foreach=foreach)
    for t, (g, h) in enumerate(zip(*GRADS[:2], strict=True)):
        a.grad = tensor(g) if t not in (3, 4) else None
        b.grad = tensor(h) if t >= 10 else None
        optimizer.step()
    without_gap = GRADS[0][:3] + GRADS[0][5:]
    assert a.item() == pytest.approx(recursion(0.7, without_gap)[-1], rel=1e-11)
    assert b.item() == pytest.approx(recursion(-1.2, GRADS[1][10:])[-1], rel=1e-11)


# ---- the optimistic gradient on bilinear games ---------------------------------------


def step_matrix(sigma, lr, optimism=1.0):
    """One step of OGDA on sigma x y as a matrix, read off the optimizer itself.

    The state is the last two points; the previous gradient is that of the older one.
    """
    columns = []
    for unit in np.eye(4):
        old, new = unit[:2], unit[2:]
        w = tensor(new)
        optimizer = OGDA([w], lr, optimism=optimism)
        field = lambda z: torch.tensor([sigma * z[1], -sigma * z[0]], dtype=FLOAT)  # noqa: E731
        optimizer.state[w]["prev_grad"] = field(old)
        w.grad = field(new)
        optimizer.step()
        columns.append(np.r_[new, w.detach().numpy()])
    return np.array(columns).T


@given(st.floats(0.05, 3.0), st.floats(0.01, 2.0), st.floats(0.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_ogda_has_the_eigenvalues_of_its_quadratic(sigma, eta_sigma, optimism):
    lr = eta_sigma / sigma
    found = np.linalg.eigvals(step_matrix(sigma, lr, optimism))
    for root in (1j, -1j):
        z = eta_sigma * root
        for mu in np.roots([1.0, -(1 - (1 + optimism) * z), -optimism * z]):
            assert np.abs(found - mu).min() < 1e-7 * (1 + abs(mu))


def radius(eta_sigma):
    return np.abs(np.linalg.eigvals(step_matrix(1.0, eta_sigma))).max()


@given(st.floats(1e-3, 1.5))
@settings(max_examples=50, deadline=None)
def test_ogda_is_stable_exactly_below_one_over_root_three(eta_sigma):
    edge = 1 / math.sqrt(3)
    if abs(eta_sigma - edge) > 1e-9:
        assert (radius(eta_sigma) < 1) == (eta_sigma < edge)


def test_ogda_sits_on_the_circle_at_the_edge_and_is_fastest_at_one_half():
    assert radius(1 / math.sqrt(3)) == pytest.approx(1.0, abs=1e-12)
    # a double root, so the eigenvalue is known to the root of rounding
    assert radius(0.5) == pytest.approx(1 / math.sqrt(2), abs=1e-7)
    grid = np.linspace(0.01, 1.0, 100)
    assert min(map(radius, grid)) >= 1 / math.sqrt(2) - 1e-7


def play(optimizers, A, x, y, steps, *, alternating=False):
    """Norms along a run on min_x max_y x'Ay."""
    norms = []
    for _ in range(steps):
        if alternating:
            for optimizer, p in zip(optimizers, (x, y), strict=True):
                optimizer.zero_grad()
                (x @ A @ y).backward(inputs=[p])
                optimizer.step()
        else:
            x.grad = y.grad = None
            (x @ A @ y).backward()
            for optimizer in optimizers:
                optimizer.step()
        norms.append(math.hypot(x.detach().norm(), y.detach().norm()))
    return np.array(norms)


def bilinear(seed, n=4):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    A = torch.tensor(A / np.linalg.norm(A, 2), dtype=FLOAT)
    return A, *(tensor(rng.standard_normal(n)) for _ in range(2))


@pytest.mark.parametrize("seed", range(3))
def test_ogda_converges_on_a_bilinear_game_where_gradient_descent_spirals(seed):
    A, x, y = bilinear(seed)
    slow = radius(0.5 * float(torch.linalg.svdvals(A).min()))
    start = math.hypot(x.detach().norm(), y.detach().norm())
    players = [OGDA([x], 0.5), OGDA([y], 0.5, maximize=True)]
    end = play(players, A, x, y, 2000)[-1]
    assert end < 50 * start * slow**2000 + 1e-14
    A, x, y = bilinear(seed)
    players = [OGDA([x], 0.5, optimism=0.0), OGDA([y], 0.5, optimism=0, maximize=True)]
    norms = play(players, A, x, y, 50)
    assert np.all(np.diff(norms) > 0)


def test_first_step_of_ogda_is_plain():
    p, q = tensor([1.0, -2.0]), tensor([1.0, -2.0])
    for optimizer, w in ((OGDA([p], 0.1), p), (torch.optim.SGD([q], 0.1), q)):
        (w**3).sum().backward()
        optimizer.step()
    torch.testing.assert_close(p, q, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("scale", [0.3, 0.7, 1 / math.sqrt(2), 0.99, 1.01])
def test_extragradient_contracts_as_the_closed_form_says(scale):
    sigma = 2.5
    x, y = tensor([0.6]), tensor([-0.8])
    group = [{"params": [x]}, {"params": [y], "maximize": True}]
    optimizer = ExtraSGD(group, scale / sigma)

    def closure():
        optimizer.zero_grad()
        loss = (sigma * x * y).sum()
        loss.backward()
        return loss

    for _ in range(5):
        before = math.hypot(x.item(), y.item())
        optimizer.step(closure)
        factor = math.hypot(x.item(), y.item()) / before
        assert factor == pytest.approx(math.sqrt(1 - scale**2 + scale**4), rel=1e-12)
        assert (factor < 1) == (scale < 1)


def test_negative_momentum_converges_only_when_the_players_alternate():
    for momentum, alternating, inwards in (
        (-0.5, False, False), (0.5, False, False), (0.0, False, False),
        (-0.5, True, True), (0.5, True, False),
    ):  # fmt: skip
        x, y = tensor([1.0]), tensor([1.0])
        players = [
            MomentumSGD([x], 0.3, momentum),
            MomentumSGD([y], 0.3, momentum, maximize=True),
        ]
        one = torch.ones(1, 1, dtype=FLOAT)
        norms = play(players, one, x, y, 500, alternating=alternating)
        assert (norms[-1] < norms[0] / 10) == inwards
        assert (norms[-1] > norms[0] * 10) != inwards


# ---- is it optimism at all? ----------------------------------------------------------


@given(
    st.floats(0.0, 4.0),
    st.lists(st.sampled_from([-1.0, 1.0]), min_size=2, max_size=40),
    st.sampled_from(["zero", "repeat"]),
)
@settings(max_examples=60, deadline=None)
def test_optimistic_adam_at_the_threshold_is_adam_without_momentum(o, signs, first):
    # gradients of one size: the denominator is 1 + eps from the first step on. What is
    # left is the start-up of the bias correction, whose sum is known in closed form.
    beta, lr = o / (1 + o), 0.01
    w, u = tensor(0.0), tensor(0.0)
    options = {"optimism": o, "first_step": first}
    feed(OptimisticAdam([w], lr, (beta, 0.9), 1e-8, **options), [w], [signs])
    feed(SignedMomentumAdam([u], lr, (0.0, 0.9), 1e-8), [u], [signs])
    m_hat, gap = 0.0, 0.0
    for t, g in enumerate(signs, 1):
        if t > 1 or first == "zero":
            gap += beta**t / (1 - beta**t) * (g - m_hat)
        m_hat += (1 - beta) / (1 - beta**t) * (g - m_hat)
    expected = u.item() - lr * gap / (1 + 1e-8)
    assert w.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_numerator_at_one_half_is_the_last_gradient(record_property):
    """Largest relative error of 2 m_t - m_{t-1} = g_t + (g_t - m_{t-1}) / (2^t - 1)."""
    worst = 0.0
    for trial in range(10):
        grads = np.random.default_rng(trial).standard_normal((60, 50))
        w = tensor(np.zeros(50))
        optimizer = OptimisticAdam([w])
        before = torch.zeros(50, dtype=FLOAT)
        for t, g in enumerate(grads, 1):
            w.grad = g = torch.tensor(g)
            optimizer.step()
            now = optimizer.state[w]["exp_avg"].clone()
            right = g + (g - before) / (2.0**t - 1)
            gap = (2 * now - before - right).abs().max() / g.abs().max()
            worst, before = max(worst, gap.item()), now
    record_property("value", float(worst))
    record_property("trials", 10)
    assert worst < 1e-14


@pytest.mark.parametrize("seed", range(5))
def test_on_noise_it_leaves_adam_without_momentum_by_its_denominators_only(seed):
    grads = np.random.default_rng(seed).standard_normal(300)
    w, u = tensor(0.0), tensor(0.0)
    a = OptimisticAdam([w], 1.0, (0.5, 0.99), first_step="repeat")
    b = SignedMomentumAdam([u], 1.0, (0.0, 0.99))
    gap = np.abs(feed(a, [w], [grads]) - feed(b, [u], [grads]))[0]
    power = 0.99 ** np.arange(1, 301.0)
    v = 0.01 * power * np.cumsum(grads**2 / power) / (1 - power)
    inverse = 1 / (np.sqrt(v) + 1e-8)
    m, total, bound = grads[0], 0.0, [0.0]
    for t in range(2, 301):
        g = grads[t - 1]
        total += abs(m * (inverse[t - 1] - inverse[t - 2]))
        total += abs(g - m) / (2.0**t - 1) * inverse[t - 1]
        m += 0.5 / (1 - 0.5**t) * (g - m)
        bound.append(total)
    assert np.all(gap <= np.array(bound) + 1e-9)


# ---- peers ---------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_momentum_sgd_is_torch_sgd_where_that_accepts_it(momentum, decay, device):
    ends = []
    for cls in (MomentumSGD, torch.optim.SGD):
        w = tensor([1.0, -2.0, 0.5], device=device)
        optimizer = cls([w], lr=0.1, momentum=momentum, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        for _ in range(12):
            optimizer.zero_grad()
            (w**4 / 40).sum().backward()
            optimizer.step()
            schedule.step()
        ends.append(w.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("cls", [SignedMomentumAdam, OptimisticAdam])
def test_without_optimism_it_is_torch_adam(cls, beta1, device):
    ends = []
    for make, options in (
        (cls, {"optimism": 0.0} if cls is OptimisticAdam else {}),
        (torch.optim.Adam, {}),
    ):
        w = tensor([1.0, -2.0, 0.5], device=device)
        optimizer = make([w], 0.1, (beta1, 0.95), 1e-3, weight_decay=0.1, **options)
        for _ in range(40):
            optimizer.zero_grad()
            (w**4).sum().backward()
            optimizer.step()
        ends.append(w.detach())
    torch.testing.assert_close(*ends, rtol=1e-11, atol=1e-13)


# Ends of 20 steps on x'Ay, computed by optax 0.2.8 with jax 0.10.2 in float64:
# optimistic_gradient_descent(lr, alpha=1, beta=o) and
# optimistic_adam_v2(0.05, alpha=1, beta=o, b1=b1, b2=b2, eps=1e-8, nesterov=False).
OPTAX = {
    ("ogda", 0.1, 1.0): [
        -0.9271575540531098, 0.7532018941123205, 0.35788783951467656,
        0.4252711075668446,
    ],
    ("ogda", 0.2, 0.5): [
        -0.07392365346641405, 0.6069961883543962, -0.9079642129988871,
        -2.0197277642719174,
    ],
    ("adam", (0.5, 0.9), 1.0): [
        -0.17359219451873897, -1.7213181573396714, 0.4874157544088224,
        -0.045530101103478104,
    ],
    ("adam", (0.0, 0.999), 1.0): [
        -0.2702688730924604, -1.5833028015126203, 0.15492772583426517,
        -0.05747379090917324,
    ],
    ("adam", (0.9, 0.99), 2.0): [
        -0.04909600657653437, -1.8813718211150043, 1.0446784425317108,
        -0.026169784678755366,
    ],
}  # fmt: skip
# nesterov=True, the default of optax, at betas (0.5, 0.9): another method
NESTEROV = [
    -0.197815208772252, -1.6754078441808036, 0.3201913576790034, -0.05579722146283381
]  # fmt: skip


@pytest.mark.parametrize("key", OPTAX, ids=str)
def test_the_path_is_that_of_optax(key):
    A = torch.tensor([[1.0, -0.5], [0.25, 2.0]], dtype=FLOAT)
    x, y = tensor([1.0, -1.0]), tensor([0.5, 1.0])
    kind, setting, o = key
    groups = [{"params": [x]}, {"params": [y], "maximize": True}]
    if kind == "ogda":
        optimizer = OGDA(groups, setting, optimism=o)
    else:
        optimizer = OptimisticAdam(
            groups, 0.05, setting, optimism=o, first_step="repeat"
        )
    play([optimizer], A, x, y, 20)
    end = torch.cat([x, y]).tolist()
    np.testing.assert_allclose(end, OPTAX[key], rtol=1e-11)
    assert np.abs(np.array(end) - NESTEROV).max() > 1e-3


# ---- extrapolation -------------------------------------------------------------------


def two_phases(optimizer, w, loss):
    for phase in (optimizer.extrapolate, optimizer.step):
        optimizer.zero_grad()
        loss(w).backward()
        phase()


@pytest.mark.parametrize("betas", [(0.5, 0.9), (0.0, 0.99), (-0.5, 0.9)])
def test_extra_adam_takes_both_gradients_into_its_averages(betas):
    lr, w, x, m, v, t = 0.05, tensor(2.0), 2.0, 0.0, 0.0, 0
    optimizer = ExtraAdam([w], lr, betas, EPS)
    slope = lambda z: 4 * z**3 - 2 * z  # noqa: E731
    for _ in range(30):
        base = x
        for _ in range(2):  # from the same point, twice
            t += 1
            m = betas[0] * m + (1 - betas[0]) * slope(x)
            v = betas[1] * v + (1 - betas[1]) * slope(x) ** 2
            m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
            x = base - lr * m_hat / (math.sqrt(v_hat) + EPS)
        two_phases(optimizer, w, lambda z: z**4 - z**2)
        assert w.item() == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("make", [lambda p: ExtraSGD(p, 0.01), ExtraAdam])
def test_phases_must_alternate(make):
    w = tensor([1.0])
    optimizer = make([w])
    with pytest.raises(RuntimeError, match="before extrapolate"):
        optimizer.step()
    w.grad = torch.ones_like(w)
    optimizer.extrapolate()
    assert w.item() < 1
    with pytest.raises(RuntimeError, match="before step"):
        optimizer.extrapolate()
    optimizer.step()
    with pytest.raises(RuntimeError, match="before extrapolate"):
        optimizer.step()


@pytest.mark.parametrize("make", [lambda p: ExtraSGD(p, 0.01), ExtraAdam])
def test_a_closure_does_what_the_two_phases_do(make):
    a, b, c = (tensor([1.0, -2.0]) for _ in range(3))
    by_hand, at_once, half = make([a]), make([b]), make([c])

    def closure_of(optimizer, w):
        def closure():
            optimizer.zero_grad()
            loss = (w**4).sum()
            loss.backward()
            return loss

        return closure

    for _ in range(6):
        start = (a.detach() ** 4).sum()
        two_phases(by_hand, a, lambda z: (z**4).sum())
        assert torch.equal(at_once.step(closure_of(at_once, b)).detach(), start)
        closure_of(half, c)()
        half.extrapolate()
        half.step(closure_of(half, c))  # once more only
    assert torch.equal(a, b) and torch.equal(a, c)


@pytest.mark.parametrize("make", [lambda p: ExtraSGD(p, 0.01), ExtraAdam])
def test_a_run_is_resumed_between_the_phases(make):
    a = tensor([1.0, -2.0])
    first = make([a])
    two_phases(first, a, lambda z: (z**4).sum())
    first.zero_grad()
    (a**4).sum().backward()
    first.extrapolate()
    b = a.detach().clone().requires_grad_()
    second = make([b])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer, w in ((first, a), (second, b)):
        optimizer.zero_grad()
        (w**4).sum().backward()
        optimizer.step()
        two_phases(optimizer, w, lambda z: (z**4).sum())
    assert torch.equal(a, b)


def test_a_parameter_that_loses_its_gradient_goes_back():
    a, b = tensor([1.0]), tensor([1.0])
    optimizer = ExtraSGD([a, b], 0.1)
    a.grad = b.grad = torch.ones(1, dtype=FLOAT)
    optimizer.extrapolate()
    a.grad = None
    optimizer.step()
    assert a.item() == 1.0 and b.item() == pytest.approx(0.9)


# ---- consensus -----------------------------------------------------------------------


def coupled(seed, n=3):
    """Two smooth losses of two vectors, no gradient field of any function."""
    rng = np.random.default_rng(seed)
    B, C = (torch.tensor(rng.standard_normal((n, n)), dtype=FLOAT) for _ in "BC")
    x, y = (tensor(rng.standard_normal(n)) for _ in "xy")

    def losses(x, y):
        a, b = torch.tanh(B @ x), torch.sin(C @ y)
        return (a @ b) + (x**2).sum() / 3, -(a @ b) + (y**4).sum() / 5 + x @ y

    return x, y, losses


def field(losses, w):
    n = len(w) // 2
    v = []
    for i in range(2):
        part = slice(i * n, (i + 1) * n)
        one = lambda z, i=i: losses(z[:n], z[n:])[i]  # noqa: E731
        v.append(torch.autograd.functional.jacobian(one, w, create_graph=True)[part])
    return torch.cat(v)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("maximize", [False, True])
def test_consensus_adds_the_transposed_jacobian_times_the_field(seed, maximize):
    x, y, losses = coupled(seed)
    gamma, lr = 0.7, 0.05
    w = torch.cat([x, y]).detach()
    sign = -1.0 if maximize else 1.0
    optimizer = ConsensusOptimizer(
        {
            "d": torch.optim.SGD([x], lr, maximize=maximize),
            "g": torch.optim.SGD([y], lr),
        },
        gamma,
    )
    for _ in range(4):
        v = field(losses, w)
        J = torch.autograd.functional.jacobian(lambda z: field(losses, z), w)
        # the ascending player climbs its loss, and still descends on |v|^2
        step = torch.cat([sign * v[:3], v[3:]]) + gamma * J.T @ v
        before = losses(x, y)
        found = optimizer.step(lambda: losses(x, y))
        assert all(
            torch.equal(a, b.detach()) and not a.requires_grad
            for a, b in zip(found, before, strict=True)
        )
        w = w - lr * step.detach()
        torch.testing.assert_close(torch.cat([x, y]).detach(), w, rtol=1e-12, atol=0)


def test_without_weight_it_is_simultaneous_descent_with_the_inner_optimizers():
    x, y, losses = coupled(0)
    a, b = (p.detach().clone().requires_grad_() for p in (x, y))
    optimizer = ConsensusOptimizer(
        {"d": torch.optim.Adam([x], 0.1), "g": torch.optim.RMSprop([y], 0.1)}, 0.0
    )
    plain = torch.optim.Adam([a], 0.1), torch.optim.RMSprop([b], 0.1)
    for _ in range(5):
        optimizer.step(lambda: losses(x, y))
        found = losses(a, b)
        a.grad = torch.autograd.grad(found[0], a, retain_graph=True)[0]
        b.grad = torch.autograd.grad(found[1], b)[0]
        for one in plain:
            one.step()
    assert torch.equal(x, a) and torch.equal(y, b)


def test_unbiased_regulariser_multiplies_two_batches():
    x, y, _ = coupled(0)
    _, _, first = coupled(1)
    _, _, second = coupled(2)
    w = torch.cat([x, y]).detach()
    batches = iter([first, second])
    optimizer = ConsensusOptimizer(
        {"d": torch.optim.SGD([x], 1.0), "g": torch.optim.SGD([y], 1.0)},
        0.7,
        unbiased=True,
    )
    optimizer.step(lambda: next(batches)(x, y))
    product = lambda z: field(first, z) @ field(second, z) / 2  # noqa: E731
    pull = torch.autograd.functional.jacobian(product, w)
    mean = (field(first, w) + field(second, w)) / 2
    expected = w - mean.detach() - 0.7 * pull
    torch.testing.assert_close(torch.cat([x, y]).detach(), expected)


def test_noise_biases_the_norm_and_not_the_product():
    # v_B = v + noise: E |v_B|^2 / 2 has the gradient of tr Cov / 2 on top. Here the
    # noise grows with x, so the plain regulariser pulls x to 0 and the product does not
    torch.manual_seed(0)
    pulls = {}
    for unbiased in (False, True):
        x, y = tensor(np.ones(500)), tensor([0.0])
        optimizer = ConsensusOptimizer(
            {"d": torch.optim.SGD([x], 0.0), "g": torch.optim.SGD([y], 0.0)},
            1.0,
            unbiased=unbiased,
        )

        def closure(x=x, y=y):
            noise = torch.randn(500, dtype=FLOAT)
            return (noise * x**2 / 2).sum(), (y**2).sum() / 2

        found = []
        for _ in range(10):
            optimizer.step(closure)
            found.append(x.grad)
        found = torch.cat(found).numpy()
        pulls[unbiased] = np.mean(found), np.std(found) / math.sqrt(5000)
    mean, error = pulls[False]
    assert abs(mean - 1.0) < 5 * error  # the gradient of E (noise x)^2 / 2
    mean, error = pulls[True]
    assert abs(mean) < 5 * error


def test_consensus_skips_what_has_no_gradient_and_pulls_what_only_the_other_sees():
    x, y, z, frozen = tensor([1.0]), tensor([2.0]), tensor([3.0]), torch.ones(1)
    unused = tensor([4.0])
    optimizer = ConsensusOptimizer(
        {
            "d": torch.optim.SGD([x, z, frozen, unused], 1.0),
            "g": torch.optim.SGD([y], 1.0),
        },
        0.5,
    )
    # z is the discriminator's, but only the generator's loss depends on it: v_z = 0
    optimizer.step(lambda: ((x * y).sum(), (z * y**2).sum()))
    # v = (y, 0, 2 z y); |v|^2 / 2 = y^2 / 2 + 2 z^2 y^2
    assert x.grad.item() == pytest.approx(2.0)
    assert z.grad.item() == pytest.approx(0.5 * 4 * 3 * 4)
    assert y.grad.item() == pytest.approx(12 + 0.5 * (2 + 4 * 9 * 2))
    assert unused.grad is None and unused.item() == 4.0 and frozen.grad is None


def test_a_constant_field_has_no_pull():
    x, y = tensor([1.0]), tensor([1.0])
    optimizer = ConsensusOptimizer(
        {"d": torch.optim.SGD([x], 1.0), "g": torch.optim.SGD([y], 1.0)}
    )
    optimizer.step(lambda: (x.sum(), y.sum()))
    assert x.item() == y.item() == 0.0


def consensus(x, y, **options):
    players = {"d": torch.optim.SGD([x], 0.1), "g": torch.optim.SGD([y], 0.1)}
    return ConsensusOptimizer(players, **options)


def test_what_cannot_be_differentiated_twice_is_refused():
    x, y = tensor([1.0]), tensor([2.0])
    optimizer = consensus(x, y)
    with pytest.raises(TypeError, match="closure"):
        optimizer.step(None)
    for bad in (1.0, (x * y).sum(), [(x * y).sum()]):
        with pytest.raises(TypeError, match="losses"):
            optimizer.step(lambda bad=bad: bad)

    def without_graph():
        with torch.no_grad():
            return (x * y).sum(), -(x * y).sum()

    for losses in (without_graph, lambda: ((x * y).sum(), 2.0)):
        with pytest.raises(RuntimeError, match="graph"):
            optimizer.step(losses)

    def calls_backward():
        loss = (x * y).exp().sum()
        loss.backward()
        return loss, -loss

    with pytest.raises(RuntimeError) as caught:
        optimizer.step(calls_backward)
    assert any("without calling backward" in n for n in caught.value.__notes__)

    def in_place():
        hidden = torch.sigmoid(x * y)
        loss = (hidden**2).sum()
        hidden.mul_(2.0)
        return loss, -loss

    with pytest.raises(RuntimeError) as caught:
        optimizer.step(in_place)
    assert any("in place" in n for n in caught.value.__notes__)
    assert x.item() == 1.0 and y.item() == 2.0


def test_consensus_refuses_what_it_cannot_use():
    x, y = tensor([1.0]), tensor([2.0])
    opt_x, opt_y = torch.optim.SGD([x], 0.1), torch.optim.SGD([y], 0.1)
    for bad in ([opt_x, opt_y], {"d": opt_x, "g": [y]}, None):
        with pytest.raises(TypeError, match="optimizers"):
            ConsensusOptimizer(bad)
    with pytest.raises(ValueError, match="'d' and 'g'"):
        ConsensusOptimizer({"d": opt_x, "generator": opt_y})
    with pytest.raises(ValueError, match="more than one"):
        ConsensusOptimizer({"d": opt_x, "g": torch.optim.SGD([y, x], 0.1)})
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"gamma.*{value!r}"):
            consensus(x, y, gamma=value)
    with pytest.raises(TypeError, match="unbiased.*1"):
        consensus(x, y, unbiased=1)
    with pytest.raises(ValueError, match="player"):
        consensus(x, y).add_param_group({"params": [tensor([0.0])]})


# ---- CUDA graphs ---------------------------------------------------------------------

CAPTURABLE = [
    lambda p, **k: OGDA(p, 0.1, **k),
    lambda p, **k: OptimisticAdam(p, 0.05, **k),
    lambda p, **k: OptimisticAdam(p, 0.05, (0.0, 0.9), first_step="repeat", **k),
    lambda p, **k: SignedMomentumAdam(p, 0.05, **k),
]
each_capturable = pytest.mark.parametrize("make", CAPTURABLE, ids=range(4))


@each_capturable
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, FLOAT])
def test_a_count_on_the_device_changes_nothing(make, foreach, dtype, device):
    ends = []
    for capturable in (False, True):
        w = [torch.full((3,), 1.5, dtype=dtype, device=device) for _ in range(2)]
        w = [p.requires_grad_() for p in w]
        optimizer = make(w, capturable=capturable, foreach=foreach)
        for step in range(60):
            if step == 30:  # a run that is resumed must not lose digits of the count
                state = optimizer.state_dict()
                optimizer = make(w, capturable=capturable, foreach=foreach)
                optimizer.load_state_dict(state)
            for p in w if step > 4 else w[:1]:  # the second one comes late
                p.grad = 4 * p.detach() ** 3 - p.detach()
            optimizer.step()
        ends.append(torch.cat([p.detach() for p in w]))
    rtol = 1e-12 if dtype == FLOAT else 1e-5
    torch.testing.assert_close(*ends, rtol=rtol, atol=rtol)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_capturable
@pytest.mark.parametrize("foreach", [False, True])
def test_steps_of_a_cuda_graph_are_those_without(make, foreach):
    def start():
        return [
            torch.full((n,), 1.5, device="cuda", requires_grad=True) for n in (3, 5)
        ]

    eager, w = start(), start()
    plain = make(eager, foreach=foreach)
    captured = make(w, foreach=foreach, capturable=True)
    grads = [torch.zeros_like(p) for p in w]

    def fill():
        for p, g in zip(w, grads, strict=True):
            g.copy_(4 * p.detach() ** 3 - p.detach())

    for p, g in zip(w, grads, strict=True):
        p.grad = g
    fill()
    captured.step()  # creates the state
    graph = torch.cuda.CUDAGraph()
    fill()
    with torch.cuda.graph(graph):
        captured.step()
    for _ in range(20):
        fill()
        graph.replay()
    for _ in range(21):
        for p in eager:
            p.grad = 4 * p.detach() ** 3 - p.detach()
        plain.step()
    for p, q in zip(w, eager, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    fresh = make(start(), foreach=foreach, capturable=True)
    refusing = make(start(), foreach=foreach)
    for optimizer, message in ((fresh, "one step before"), (refusing, "capturable")):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        with pytest.raises(RuntimeError, match=message):
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                optimizer.step()
