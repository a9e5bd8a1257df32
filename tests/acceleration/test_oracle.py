"""Oracle: what is counted, remembered, refused and recorded."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.acceleration import Oracle
from lib.acceleration.oracle import RECORDS, _Stop

rng = np.random.default_rng(0)
B = rng.standard_normal((4, 4))
SYMMETRIC = B + B.T


def fun(x):
    return float(x @ SYMMETRIC @ x / 2 + np.sum(np.cos(x)))


def jac(x):
    return SYMMETRIC @ x - np.sin(x)


def hess(x):
    return SYMMETRIC - np.diag(np.cos(x))


def hessp(x, v):
    return hess(x) @ v


def torch_fun(x):
    A = torch.tensor(SYMMETRIC, dtype=x.dtype, device=x.device)
    return x @ A @ x / 2 + x.cos().sum()


class Counter:
    """An independent counter around a function."""

    def __init__(self, f):
        self.f, self.calls = f, 0

    def __call__(self, *args):
        self.calls += 1
        return self.f(*args)


X = rng.standard_normal(4)
V = rng.standard_normal(4)


def supplied(kind, x=X):
    """An oracle for one way of giving derivatives, and counters for all it is given."""
    f, j, hp, h = map(Counter, (fun, jac, hessp, hess))
    fused = Counter(lambda x: (fun(x), jac(x)))
    auto = Counter(torch_fun)
    if kind == "autograd":
        return Oracle(auto, torch.tensor(x)), (auto, j, hp, h)
    if kind == "fused":
        return Oracle(fused, x, jac=True), (fused, fused, hp, h)
    keywords = {"hessp": {"hessp": hp}, "hess": {"hess": h}, "difference": {}}
    return Oracle(f, x, jac=j, **keywords[kind]), (f, j, hp, h)


KINDS = ("hessp", "hess", "difference", "fused", "autograd")


@pytest.mark.parametrize("kind", KINDS)
def test_answers_agree_with_the_closed_forms(kind):
    oracle, _ = supplied(kind)
    x, v = oracle.x0, oracle.asarray(V)
    assert oracle.fun(x) == pytest.approx(fun(X), rel=1e-12)
    np.testing.assert_allclose(oracle.grad(x), jac(X), rtol=1e-12)
    assert oracle.grad_norm == pytest.approx(np.linalg.norm(jac(X)))
    np.testing.assert_allclose(oracle.hessp(x, v), hessp(X, V), atol=1e-6)
    np.testing.assert_allclose(oracle.hess(x), hess(X), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("fun grad hessp hess".split()), st.integers(0, 2)),
        max_size=12,
    )
)
def test_counts_are_those_of_an_independent_counter(kind, questions):
    oracle, (f, j, hp, h) = supplied(kind)
    points = [oracle.x0 + i for i in range(3)]
    v = oracle.asarray(V)
    passes = 0
    original = torch.autograd.grad

    def counted(*args, **keywords):
        nonlocal passes
        passes += 1
        return original(*args, **keywords)

    torch.autograd.grad = counted
    try:
        for name, i in questions:
            getattr(oracle, name)(points[i], *([v] if name == "hessp" else []))
    finally:
        torch.autograd.grad = original
    assert oracle.nfev == f.calls
    assert oracle.nhev == h.calls
    if kind == "autograd":
        assert oracle.njev + oracle.nhevp == passes
    else:
        assert oracle.njev == j.calls
    if kind == "hessp":
        assert oracle.nhevp == hp.calls
    if kind in ("difference", "fused"):
        assert oracle.nhevp == 0
    assert oracle.calls == oracle.njev + oracle.nhevp


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_question_is_answered_from_memory(kind):
    oracle, _ = supplied(kind)
    x = oracle.x0
    oracle.fun(x), oracle.grad(x), oracle.hess(x), oracle.fun(x), oracle.grad(x)
    before = oracle.nfev, oracle.njev, oracle.nhevp, oracle.nhev
    oracle.fun(x), oracle.grad(x), oracle.hess(x)
    assert (oracle.nfev, oracle.njev, oracle.nhevp, oracle.nhev) == before


def test_the_memory_is_of_one_entry():
    oracle, counters = supplied("hessp")
    x, y = oracle.x0, oracle.x0 + 1.0
    oracle.grad(x), oracle.grad(y), oracle.grad(x)
    assert oracle.njev == 3


def test_a_difference_of_gradients_costs_one_gradient_and_keeps_the_memory():
    oracle, _ = supplied("difference")
    x, v = oracle.x0, oracle.asarray(V)
    oracle.grad(x)
    for k in range(1, 4):
        oracle.hessp(x, v)
        assert oracle.njev == 1 + k
    oracle.grad(x)
    assert oracle.njev == 4


def test_the_graph_of_a_gradient_serves_all_products_at_its_point():
    oracle, _ = supplied("autograd")
    x, v = oracle.x0, oracle.asarray(V)
    for _ in range(5):
        oracle.hessp(x, v)
    assert (oracle.nfev, oracle.njev, oracle.nhevp) == (1, 1, 5)
    oracle.grad(x), oracle.fun(x)
    assert (oracle.nfev, oracle.njev) == (1, 1)


def test_a_value_and_a_gradient_of_torch_share_one_pass():
    oracle, _ = supplied("autograd")
    oracle.fun(oracle.x0), oracle.grad(oracle.x0)
    assert (oracle.nfev, oracle.njev) == (1, 1)


@pytest.mark.parametrize("power", [1, 2])
def test_a_hessian_that_vanishes_or_is_constant_is_no_special_case(power):
    oracle = Oracle(lambda x: (x**power).sum(), torch.ones(3, dtype=torch.float64))
    product = oracle.hessp(oracle.x0, oracle.x0)
    assert product.tolist() == [2.0 * (power - 1)] * 3


def test_the_user_may_write_into_his_arrays():
    buffer = np.empty(4)

    def reused(x):
        buffer[:] = jac(x)
        x[:] = np.nan
        return buffer

    oracle = Oracle(fun, X, jac=reused)
    first = oracle.grad(oracle.x0)
    kept = first.copy()
    product = oracle.hessp(oracle.x0, V)
    assert np.array_equal(first, kept) and np.isfinite(oracle.x0).all()
    np.testing.assert_allclose(product, hessp(X, V), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2)])
def test_functions_get_the_shape_of_the_start(backend, shape):
    seen = []

    def f(x):
        seen.append(tuple(x.shape))
        return float((x**2).sum())

    def g(x):
        seen.append(tuple(x.shape))
        return 2 * x

    oracle = Oracle(f, backend.asarray(np.ones(shape)), jac=g)
    oracle.fun(oracle.x0)
    assert oracle.grad(oracle.x0).shape == oracle.x0.shape == (math.prod(shape),)
    assert tuple(oracle.restore(oracle.x0).shape) == shape
    assert set(seen) == {shape}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kind_dtype_and_device_are_kept(backend, dtype):
    oracle = Oracle(
        lambda x: (x**4).sum() if backend.kind == "torch" else float((x**4).sum()),
        backend.asarray([1.0, 2.0], dtype),
        jac=None if backend.kind == "torch" else lambda x: 4 * x.astype(float) ** 3,
    )
    x = oracle.x0
    tolerance = 1e-3 if dtype == "float32" else 1e-6
    for made in (oracle.grad(x), oracle.hessp(x, x), oracle.hess(x)):
        assert backend.owns(made, dtype)
    assert isinstance(oracle.fun(x), float)
    product = backend.numpy(oracle.hessp(x, x))
    np.testing.assert_allclose(product, [12, 96], rtol=10 * tolerance)


def test_the_budget_is_never_exceeded_and_its_end_is_said():
    oracle = Oracle(fun, X, jac=jac, hessp=hessp, max_oracle=3)
    x = oracle.x0
    oracle.grad(x), oracle.hessp(x, V), oracle.hessp(x, V)
    for question in (lambda: oracle.grad(x + 1), lambda: oracle.hessp(x, V)):
        with pytest.raises(_Stop, match="budget of 3 oracle calls is spent"):
            question()
    assert oracle.calls == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    broken = Oracle(lambda x: bad, X, jac=lambda x: np.full(4, bad))
    with pytest.raises(_Stop, match="fun returned"):
        broken.fun(broken.x0)
    with pytest.raises(_Stop, match="jac returned"):
        broken.grad(broken.x0)
    assert broken.trial(broken.x0) == math.inf
    broken = Oracle(fun, X, jac=jac, hessp=lambda x, v: np.full(4, bad))
    with pytest.raises(_Stop, match="hessp returned"):
        broken.hessp(broken.x0, V)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_gradient_whose_square_overflows_is_finite():
    oracle = Oracle(fun, X, jac=lambda x: np.full(4, 1e200))
    oracle.grad(oracle.x0)
    assert math.isfinite(oracle.grad_norm)


def test_only_the_last_recorded_iterate_is_kept_and_events_are_noted():
    oracle, _ = supplied("hessp")
    x, y = oracle.x0, oracle.x0 + 1.0
    oracle.fun(x), oracle.grad(x)
    oracle.record(x, "start")
    oracle.grad(y)
    oracle.record(y)
    history = oracle.history
    assert history["event"].tolist() == ["start", "step"] and oracle.nit == 1
    assert history["oracle"].tolist() == [1, 2]
    assert history["fun"][0] == fun(X) and math.isnan(history["fun"][1])
    assert history["grad_norm"][1] == pytest.approx(np.linalg.norm(jac(X + 1)))


def test_a_long_history_is_thinned_and_rare_events_stay():
    oracle, _ = supplied("hessp")
    for i in range(10 * RECORDS):
        oracle.record(oracle.x0)
        if i % RECORDS == 0:
            oracle.record(oracle.x0, "rare")
    events = oracle.history["event"]
    assert oracle.nit == 10 * RECORDS
    assert RECORDS / 2 < len(events) <= RECORDS + 11
    assert (events == "rare").sum() == 10


def test_the_callback_gets_a_copy_and_may_end_the_run():
    def callback(x):
        assert x.shape == (2, 2)
        x[:] = 0
        raise StopIteration

    oracle = Oracle(lambda x: 0.0, np.ones((2, 2)), jac=lambda x: x, callback=callback)
    with pytest.raises(_Stop, match="callback"):
        oracle.record(oracle.x0)
    assert oracle.x0.sum() == 4


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "match"),
    [
        ((fun, [1, 2]), {"jac": jac}, ValueError, "x0 must be float32 or float64"),
        ((fun, np.ones(2, bool)), {"jac": jac}, ValueError, "x0 must be"),
        ((fun, torch.ones(2, dtype=torch.int32)), {}, ValueError, "x0 must be"),
        ((fun, np.ones(2, complex)), {"jac": jac}, TypeError, "x0 must be"),
        ((fun, np.array([np.nan])), {"jac": jac}, ValueError, "x0 must hold finite"),
        ((fun, np.ones((0, 2))), {"jac": jac}, ValueError, "x0 must not be empty"),
        ((fun, X), {}, ValueError, "jac must be given"),
        ((3, X), {"jac": jac}, TypeError, "fun must be callable"),
        ((fun, X), {"jac": False}, TypeError, "jac must be callable, True or None"),
        ((fun, X), {"jac": jac, "hessp": 1}, TypeError, "hessp must be callable"),
        ((fun, X), {"jac": jac, "hess": 1}, TypeError, "hess must be callable"),
        ((fun, X), {"jac": jac, "callback": 1}, TypeError, "callback must be"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, match):
    with pytest.raises(error, match=match):
        Oracle(*arguments, **keywords)


@pytest.mark.parametrize(
    ("functions", "error", "match"),
    [
        ({"jac": lambda x: x[:2]}, ValueError, "jac must return the shape of x0"),
        ({"jac": jac, "hess": lambda x: B}, ValueError, "symmetric matrix"),
        ({"jac": jac, "hess": lambda x: B[:2]}, ValueError, "hess must return shape"),
    ],
)
def test_what_the_functions_return_is_checked(functions, error, match):
    oracle = Oracle(fun, X, **functions)
    with pytest.raises(error, match=match):
        oracle.grad(oracle.x0)
        oracle.hess(oracle.x0)


def test_a_value_must_be_a_number_and_of_torch_one_that_depends_on_x():
    oracle = Oracle(lambda x: x, X, jac=jac)
    with pytest.raises(TypeError, match="fun must return a real number"):
        oracle.fun(oracle.x0)
    for f in (lambda x: 1.0, lambda x: x, lambda x: x.detach().sum()):
        oracle = Oracle(f, torch.ones(2))
        with pytest.raises(ValueError, match="scalar tensor that depends on x"):
            oracle.grad(oracle.x0)
    oracle = Oracle(lambda x: 0.0, torch.ones(2), jac=lambda x: np.ones(2))
    with pytest.raises(TypeError, match="jac must return a tensor"):
        oracle.grad(oracle.x0)
