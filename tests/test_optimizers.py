"""One battery for every torch optimizer of the book.

An optimizer enters by one line in ``OPTIMIZERS``: a factory with its hyper-parameters,
others for a second group of parameters, and values that it must refuse. What a class
offers (``maximize``, ``foreach``, ``generator``) is read off its signature. Where a
contract cannot hold, the entry says so, with the reason beside it.
"""

import copy
import inspect
import io
import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from lib.acceleration import HeavyBall, NesterovConst, PerturbedAGD
from lib.games import (
    OGDA,
    ConsensusOptimizer,
    ExtraAdam,
    ExtraSGD,
    MomentumSGD,
    OptimisticAdam,
    SignedMomentumAdam,
)


@dataclass(frozen=True)
class Entry:
    """A class, how to make it, and what it promises."""

    cls: type
    options: dict
    other: dict | None  # for a second group; None: one group only
    invalid: tuple  # (hyper-parameter, value) pairs that are refused
    calls: range = range(1, 2)  # calls of a closure in one step
    needs_closure: bool = False
    phases: tuple = ("step",)  # without a closure, each with a gradient of its own
    loops: int = 400  # steps to the minimum of a quadratic
    quiet: dict = field(default_factory=dict)  # changes that switch chance off

    def make(self, params, **changes):
        options = {**self.options, **changes}
        if "generator" in self.parameters:
            options.setdefault("generator", torch.Generator().manual_seed(0))
        return self.cls(params, **options)

    @property
    def parameters(self):
        return inspect.signature(self.cls.__init__).parameters


# Two optimizers and how they are stepped together. Its closure returns two losses and
# calls no backward, and groups, learning rates, and what kinds of parameters and
# gradients are allowed are the business of the two: tests of these leave it out.
class Pair(Entry):
    def make(self, params, lr=0.1, **changes):
        half = [torch.optim.SGD(part, lr) for part in (params[:1], params[1:])]
        players = dict(zip("dg", half, strict=True))
        return self.cls(players, **{**self.options, **changes})


OPTIMIZERS = [
    Entry(
        HeavyBall,
        {"lr": 0.05, "momentum": 0.8},
        {"lr": 0.02, "momentum": 0.3},
        (("lr", -0.1), ("lr", float("nan")), ("lr", "0.1"), ("momentum", 1.0),
         ("momentum", -0.5), ("momentum", None)),
    ),
    Entry(
        NesterovConst,
        {"lr": 0.05, "kappa": 30.0},
        {"lr": 0.02, "kappa": 4.0},
        (("lr", -0.1), ("lr", float("inf")), ("lr", True), ("kappa", 0.5),
         ("kappa", 0.0), ("kappa", "9")),
    ),
    # One group, as for torch.optim.LBFGS: its norms are over all parameters.
    Entry(
        PerturbedAGD,
        {"lr": 0.02, "L2": 1.0, "tol": 10.0, "interval": 3, "radius": 0.01},
        None,
        (("lr", 0.0), ("lr", -1), ("L2", 0.0), ("L2", "1"), ("tol", -1e-3),
         ("tol", 1e9), ("radius", 0.0), ("interval", -1), ("interval", 2.5),
         ("generator", 7)),
        calls=range(2, 6),
        needs_closure=True,
        loops=1000,
        quiet={"tol": 1e-9},
    ),
    Entry(
        OGDA,
        {"lr": 0.05, "optimism": 1.0},
        {"lr": 0.1, "optimism": 0.5, "weight_decay": 0.1},
        (("lr", -0.1), ("lr", float("nan")), ("lr", "0.1"), ("optimism", -1.0),
         ("optimism", float("inf")), ("weight_decay", -0.1)),
    ),
    Entry(
        MomentumSGD,
        {"lr": 0.1, "momentum": -0.5},
        {"lr": 0.02, "momentum": 0.9},
        (("lr", -0.1), ("lr", float("nan")), ("momentum", 1.0), ("momentum", -1.0),
         ("momentum", float("nan")), ("momentum", "0.5"), ("weight_decay", -0.1)),
    ),
    Entry(
        SignedMomentumAdam,
        {"lr": 0.02, "betas": (-0.5, 0.99)},
        {"lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-3},
        (("lr", -0.1), ("lr", None), ("betas", (-1.0, 0.9)), ("betas", (0.5, 1.0)),
         ("betas", (0.5, -0.1)), ("betas", 0.5), ("betas", (0.5,)), ("eps", -1e-8)),
    ),
    Entry(
        OptimisticAdam,
        {"lr": 0.02, "betas": (0.0, 0.99)},
        {"lr": 0.01, "betas": (0.5, 0.9), "optimism": 0.5, "first_step": "repeat"},
        (("lr", float("inf")), ("betas", (1.0, 0.9)), ("betas", (float("nan"), 0.9)),
         ("betas", ("0.5", 0.9)), ("eps", float("nan")), ("optimism", -0.5),
         ("first_step", "twice"), ("first_step", None)),
    ),
    Entry(
        ExtraSGD,
        {"lr": 0.1},
        {"lr": 0.05, "weight_decay": 0.1},
        (("lr", -0.1), ("lr", True), ("weight_decay", float("nan"))),
        calls=range(2, 3),
        phases=("extrapolate", "step"),
    ),
    Entry(
        ExtraAdam,
        {"lr": 0.02, "betas": (0.5, 0.99)},
        {"lr": 0.01, "betas": (-0.5, 0.9)},
        (("lr", -0.1), ("betas", (0.5, 1.0)), ("betas", None), ("eps", -1.0)),
        calls=range(2, 3),
        phases=("extrapolate", "step"),
    ),
]  # fmt: skip
CONSENSUS = Pair(
    ConsensusOptimizer,
    {"gamma": 0.3},
    None,
    (),  # refused values: tests/games/test_optim.py
    needs_closure=True,
)

every = pytest.mark.parametrize("entry", OPTIMIZERS, ids=lambda e: e.cls.__name__)
every_and_pairs = pytest.mark.parametrize(
    "entry", [*OPTIMIZERS, CONSENSUS], ids=lambda e: e.cls.__name__
)


# ---- a small problem ----------------------------------------------------------------

CURVATURE = (
    torch.linspace(0.5, 4.0, 6, dtype=torch.float64).reshape(2, 3),
    torch.linspace(1.0, 2.0, 4, dtype=torch.float64),
)


def start(device="cpu", dtype=torch.float64):
    rng = np.random.default_rng(0)
    return [
        torch.tensor(rng.standard_normal(c.shape), dtype=dtype, device=device)
        .requires_grad_()
        for c in CURVATURE
    ]  # fmt: skip


def closure_of(optimizer, params, scale=1.0, calls=None):
    """A closure for a quadratic with coupled coordinates."""

    def closure():
        assert torch.is_grad_enabled()
        if calls is not None:
            calls.append(1)
        optimizer.zero_grad()
        loss = sum(
            (c.to(p) * p**2).sum() / 2 for c, p in zip(CURVATURE, params, strict=True)
        )
        loss = scale * (loss + (params[0].sum() * params[1].sum()) / 20)
        if isinstance(optimizer, ConsensusOptimizer):
            return loss, loss
        loss.backward()
        return loss

    return closure


def train(optimizer, params, steps, **options):
    closure = closure_of(optimizer, params, **options)
    for _ in range(steps):
        optimizer.step(closure)


def same(a, b, rtol=0.0):
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=rtol, atol=0.0)


# ---- training -----------------------------------------------------------------------


@every_and_pairs
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_minimises_a_quadratic_in_place(entry, dtype, device):
    params = start(device, dtype)
    places = [p.data_ptr() for p in params]
    optimizer = entry.make(params)
    train(optimizer, params, entry.loops)
    # a perturbed method stays within its ball around the minimum
    assert max(float(p.detach().abs().max()) for p in params) < 0.05
    for p, place in zip(params, places, strict=True):
        assert p.dtype == dtype and p.device.type == device and p.data_ptr() == place
        assert p.requires_grad and p.is_leaf
        for value in optimizer.state[p].values():
            if torch.is_tensor(value) and value.is_floating_point():
                assert value.dtype == dtype and value.device.type == device


@every_and_pairs
def test_float32_follows_float64(entry, device):
    single, double = start(device, torch.float32), start(device)
    train(entry.make(single), single, 30)
    train(entry.make(double), double, 30)
    for p, q in zip(single, double, strict=True):
        torch.testing.assert_close(p.double(), q, rtol=1e-4, atol=1e-5)


@every_and_pairs
def test_every_device_takes_the_same_steps(entry, device):
    here, there = start(device), start()
    train(entry.make(here), here, 30)
    train(entry.make(there), there, 30)
    same([p.cpu() for p in here], there, rtol=1e-10)


@every_and_pairs
def test_steps_are_the_same_with_and_without_a_closure(entry):
    if entry.needs_closure:
        optimizer = entry.make(start())
        for missing in ((), (None,)):
            with pytest.raises(TypeError, match="closure"):
                optimizer.step(*missing)
        return
    a, b = start(), start()
    first, second = entry.make(a), entry.make(b)
    closure = closure_of(second, b)
    for _ in range(7):
        loss = first.step(closure_of(first, a))
        assert torch.is_tensor(loss)
        losses = []
        for phase in entry.phases:
            losses.append(closure().item())
            assert getattr(second, phase)() is None
        assert loss.item() == losses[0]
    same(a, b)


@every_and_pairs
def test_closure_is_called_as_often_as_declared_with_gradients_on(entry):
    params = start()
    optimizer = entry.make(params)
    for _ in range(20):
        calls = []
        with torch.no_grad():
            optimizer.step(closure_of(optimizer, params, calls=calls))
            assert not torch.is_grad_enabled()
        assert len(calls) in entry.calls


@every
def test_maximize_is_descent_on_the_negative(entry):
    if "maximize" not in entry.parameters:
        pytest.skip("the class has no maximize")
    a, b = start(), start()
    train(entry.make(a), a, 9)
    train(entry.make(b, maximize=True), b, 9, scale=-1.0)
    same(a, b)


@every
def test_foreach_equals_the_loop(entry, device):
    if "foreach" not in entry.parameters:
        pytest.skip("the class has no foreach")
    ends = []
    for foreach in (True, False, None):
        params = start(device)
        train(entry.make(params, foreach=foreach), params, 9)
        ends.append(params)
    same(ends[0], ends[1], rtol=1e-14)
    same(ends[2], ends[0 if device == "cuda" else 1])


# ---- gradients ----------------------------------------------------------------------


@every_and_pairs
def test_parameters_without_gradient_are_left_alone(entry):
    params = start()
    idle = torch.ones(3, dtype=torch.float64, requires_grad=True)
    frozen = torch.ones(2, dtype=torch.float64)
    optimizer = entry.make([idle, *params, frozen])
    train(optimizer, params, 5)
    alone = start()
    train(entry.make(alone), alone, 5)
    same(params, alone)
    assert torch.equal(idle, torch.ones_like(idle)) and torch.equal(
        frozen, torch.ones_like(frozen)
    )


@every
def test_gradients_may_be_zeroed_in_place(entry):
    ends = []
    for set_to_none in (True, False):
        params = start()
        optimizer = entry.make(params)
        zero = optimizer.zero_grad
        optimizer.zero_grad = lambda zero=zero, how=set_to_none: zero(set_to_none=how)
        train(optimizer, params, 9)
        ends.append(params)
    same(*ends)


@every
def test_a_zero_gradient_moves_nothing_at_first(entry):
    a, b = start(), start()
    first, second = entry.make(a[:1], **entry.quiet), entry.make(b, **entry.quiet)

    def partly(optimizer, params, zero):
        def closure():
            optimizer.zero_grad()
            loss = (params[0] ** 2).sum() + (0 * params[1].sum() if zero else 0)
            loss.backward()
            return loss

        return closure

    for _ in range(4):
        first.step(partly(first, a, zero=False))
        second.step(partly(second, b, zero=True))
    same(a, b)


@every
def test_sparse_gradients_are_refused(entry):
    weight = torch.ones(5, 2, dtype=torch.float64, requires_grad=True)
    optimizer = entry.make([weight])

    def closure():
        optimizer.zero_grad()
        rows = torch.nn.functional.embedding(torch.tensor([1]), weight, sparse=True)
        loss = rows.sum()
        loss.backward()
        return loss

    with pytest.raises((TypeError, RuntimeError), match="sparse"):
        optimizer.step(closure)
    assert torch.equal(weight, torch.ones_like(weight))


@every
def test_complex_parameters_are_refused(entry):
    z = torch.ones(2, dtype=torch.complex128, requires_grad=True)
    with pytest.raises(TypeError, match="real.*complex128"):
        entry.make([z])
    if entry.other is not None:
        optimizer = entry.make(start())
        with pytest.raises(TypeError, match="complex128"):
            optimizer.add_param_group({"params": [z]})
        assert len(optimizer.param_groups) == 1


# ---- hyper-parameters ---------------------------------------------------------------


@every
def test_bad_hyper_parameters_are_refused_with_their_value(entry):
    for name, value in entry.invalid:
        with pytest.raises((TypeError, ValueError)) as caught:
            entry.make(start(), **{name: value})
        text = str(caught.value)
        assert name in text and repr(value) in text, (name, value, text)
        if entry.other is None or name not in entry.other:
            continue
        with pytest.raises((TypeError, ValueError), match=name):
            entry.make([{"params": start(), name: value}])
    with pytest.raises(ValueError, match="empty"):
        entry.make([])


@every
def test_groups_have_hyper_parameters_of_their_own(entry):
    a, b = start(), start()
    if entry.other is None:
        groups = [{"params": [p]} for p in a]
        with pytest.raises(ValueError, match="group"):
            entry.make(groups)
        with pytest.raises(ValueError, match="group"):
            entry.make(a[:1]).add_param_group({"params": a[1:]})
        return
    both = entry.make([{"params": a[:1]}, {"params": a[1:], **entry.other}])
    assert both.param_groups[1].items() >= entry.other.items()
    assert both.param_groups[0].items() >= entry.options.items()
    first, second = entry.make(b[:1]), entry.make(b[1:], **entry.other)
    for _ in range(9):
        for phase in entry.phases:
            for optimizer, params in ((both, a), (first, b)):
                closure_of(optimizer, params)()
            for optimizer in (both, first, second):
                getattr(optimizer, phase)()
            second.zero_grad()
    same(a, b)


@every
def test_a_group_can_be_added_later(entry):
    if entry.other is None:
        pytest.skip("one group only")
    a, b = start(), start()
    late = entry.make(a[:1])
    apart = entry.make(b[:1]), entry.make(b[1:], **entry.other)
    for step in range(9):
        if step == 4:
            late.add_param_group({"params": a[1:], **entry.other})
        for phase in entry.phases:
            for p in (*a, *b):
                p.grad = None
            for params in (a, b):
                sum((p**2).sum() for p in params).backward()
            for optimizer in (late, apart[0], *apart[1:][: step >= 4]):
                getattr(optimizer, phase)()
    same(a, b)


@every
def test_schedulers_work(entry):
    half = {"lr": entry.options["lr"] / 2}
    a, b = start(), start()
    scheduled, constant = entry.make(a), entry.make(b, **half)
    scheduler = torch.optim.lr_scheduler.LambdaLR(scheduled, lambda step: 0.5)
    for _ in range(6):
        scheduled.step(closure_of(scheduled, a))
        constant.step(closure_of(constant, b))
        scheduler.step()
    same(a, b)
    assert scheduler.get_last_lr() == [half["lr"]]


# ---- state --------------------------------------------------------------------------


def unbroken(entry, device):
    params = start(device)
    train(entry.make(params), params, 12)
    return params


@every_and_pairs
@pytest.mark.parametrize("through", ["dict", "torch.save", "deepcopy"])
def test_a_resumed_run_repeats_the_unbroken_one_bit_for_bit(entry, through, device):
    params = start(device)
    optimizer = entry.make(params)
    train(optimizer, params, 7)
    state = optimizer.state_dict()
    if through == "torch.save":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    elif through == "deepcopy":
        state = copy.deepcopy(state)
    again = [p.detach().clone().requires_grad_() for p in params]
    options = {}
    if "generator" in entry.parameters:
        options["generator"] = torch.Generator().manual_seed(99)
    resumed = entry.make(again, **options)
    resumed.load_state_dict(state)
    train(resumed, again, 5)
    same(again, unbroken(entry, device))


@every
def test_loaded_hyper_parameters_replace_those_of_the_constructor(entry):
    if entry.other is None:
        pytest.skip("one group only: nothing to tell apart")
    a, b = start(), start()
    first, second = entry.make(a), entry.make(b, **entry.other)
    second.load_state_dict(first.state_dict())
    train(first, a, 5)
    train(second, b, 5)
    same(a, b)


@every_and_pairs
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_go_on_alike(entry, way):
    params = start()
    optimizer = entry.make(params)
    train(optimizer, params, 7)
    both = optimizer, params
    twin, twins = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(
        pickle.dumps(both)
    )
    assert twin.param_groups[0]["params"][0] is twins[0]
    train(twin, twins, 5)
    same(twins, unbroken(entry, "cpu"))
    train(optimizer, params, 5)
    same(params, twins)
    assert type(twin).__name__ in repr(twin)


@every_and_pairs
def test_hooks_run(entry):
    params, seen = start(), []
    optimizer = entry.make(params)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(optimizer, params, 2)
    assert seen == ["before", "after"] * 2


# ---- randomness ---------------------------------------------------------------------


@every_and_pairs
def test_global_random_state_is_left_alone(entry, device):
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    before = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if device == "cuda" else None
    params = start(device)
    options = {"generator": None} if "generator" in entry.parameters else {}
    train(entry.make(params, **options), params, 25)
    assert torch.equal(before, torch.get_rng_state())
    assert cuda is None or torch.equal(cuda, torch.cuda.get_rng_state())
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002


@every
def test_the_generator_decides_everything(entry):
    if "generator" not in entry.parameters:
        pytest.skip("the class draws nothing")
    ends = []
    for seed in (0, 0, 1):
        params = start()
        generator = torch.Generator().manual_seed(seed)
        train(entry.make(params, generator=generator), params, entry.loops)
        ends.append(torch.cat([p.detach().ravel() for p in params]))
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])
