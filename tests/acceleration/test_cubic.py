"""The cubic step against brute force and its optimality conditions; its methods."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lib.acceleration import Oracle, cubic, cubic_step, minimize_nonconvex


def model(s, g, H, M):
    """Value of the cubic model at s, or at every row of s."""
    quadratic = s @ g + 0.5 * np.sum((s @ H) * s, axis=-1)
    return quadratic + M / 6 * np.linalg.norm(s, axis=-1) ** 3


def matrix(eigenvalues, seed):
    d = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return (Q * eigenvalues) @ Q.T, Q


def optimality(s, g, H, M):
    """Relative residual of (H + lam I) s = -g, and the smallest eigenvalue there."""
    lam = M / 2 * np.linalg.norm(s)
    size = np.linalg.norm(H, 2) + lam
    residual = np.linalg.norm(H @ s + lam * s + g)
    residual /= np.linalg.norm(g) + size * np.linalg.norm(s) or 1.0
    return residual, (np.linalg.eigvalsh(H)[0] + lam) / (size or 1.0)


# The step


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("d", [1, 2])
def test_step_beats_every_point_of_a_dense_grid(d, seed):
    rng = np.random.default_rng(seed)
    g, M = rng.standard_normal(d), rng.uniform(0.3, 3)
    H, _ = matrix(3 * rng.standard_normal(d), seed)
    s = cubic_step(g, H, M)
    # at a minimiser M r^2 / 2 <= |g| + |H| r
    norm = np.linalg.norm(H, 2)
    radius = (norm + np.sqrt(norm**2 + 2 * M * np.linalg.norm(g))) / M
    side = np.linspace(-radius, radius, 20_001 if d == 1 else 801)
    grid = np.stack(np.meshgrid(*[side] * d), -1).reshape(-1, d)
    values = model(grid, g, H, M)
    assert np.linalg.norm(s) <= radius * (1 + 1e-12)
    assert model(s, g, H, M) <= values.min() + 1e-12
    # and the grid comes as near as its spacing allows
    assert values.min() - model(s, g, H, M) <= (side[1] - side[0]) ** 2 * d * (
        norm + M * radius
    )


@pytest.mark.parametrize("d", [2, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_step_beats_local_minimisation_from_many_random_starts(d, seed):
    rng = np.random.default_rng([d, seed])
    g, M = rng.standard_normal(d), rng.uniform(0.3, 3)
    H, Q = matrix(2 * rng.standard_normal(d), seed)
    if seed % 2:  # the hard case, made harder by a small gradient
        bottom = Q[:, np.linalg.eigvalsh(H)[0] >= np.diag(Q.T @ H @ Q) - 1e-9]
        g = 0.1 * (g - bottom @ (bottom.T @ g))
    found = model(cubic_step(g, H, M), g, H, M)
    starts = 3 * rng.standard_normal((40, d))
    best = min(minimize(model, x, args=(g, H, M)).fun for x in starts)
    assert found <= best + 1e-9
    assert best - found < 1e-6 * (1 + abs(found))  # they find it too: same problem


@given(
    d=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    scales=st.tuples(*[st.floats(-6, 6)] * 3),
    bottom=st.sampled_from([0.0, 1e-300, 1e-200, 1e-40, 1e-9, 1.0]),
    rounded=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_optimality_conditions_hold(d, seed, scales, bottom, rounded):
    rng = np.random.default_rng(seed)
    h = rng.standard_normal(d)
    h = np.round(h) if rounded else h  # multiple eigenvalues, and zero ones
    c = rng.standard_normal(d)
    c[h == h.min()] *= bottom
    H, Q = matrix(h * 10 ** scales[0], seed)
    g, M = Q @ c * 10 ** scales[1], 10 ** scales[2]
    residual, smallest = optimality(cubic_step(g, H, M), g, H, M)
    assert residual < 1e-12
    assert smallest > -1e-12


def test_hard_case_uses_the_bottom_eigenvector():
    g, H, M = np.array([0.0, 1.0, -2.0]), np.diag([-2.0, 1.0, 3.0]), 0.5
    s = cubic_step(g, H, M)
    # lam = 2 exactly, so the length is 2 lam / M = 8
    np.testing.assert_allclose(s[1:], [-1 / 3, 2 / 5], rtol=1e-14)
    assert np.linalg.norm(s) == pytest.approx(8, rel=1e-14)
    # with a larger gradient the other components are long enough: no hard case
    s = cubic_step(200 * g, H, M)
    assert s[0] == 0
    assert M / 2 * np.linalg.norm(s) > 2
    assert max(optimality(s, 200 * g, H, M)[:1]) < 1e-14


@pytest.mark.parametrize("tiny", [1e-3, 1e-9, 1e-30, 1e-200])
def test_a_tiny_component_decides_the_side_of_the_nearly_hard_case(tiny):
    H = np.diag([-1.0, 2.0])
    right = cubic_step(np.array([-tiny, 1.0]), H, 0.5)
    left = cubic_step(np.array([tiny, 1.0]), H, 0.5)
    np.testing.assert_allclose(left, right * [-1, 1], rtol=1e-12)
    assert right[0] > 3.9


def test_no_gradient():
    np.testing.assert_array_equal(cubic_step(np.zeros(3), np.eye(3), 1.0), 0)
    np.testing.assert_array_equal(cubic_step(np.zeros(2), np.zeros((2, 2)), 1.0), 0)
    H, Q = matrix(np.array([-3.0, -1.0, 2.0]), 0)
    s = cubic_step(np.zeros(3), H, 1.5)
    np.testing.assert_allclose(np.abs(Q.T @ s), [4, 0, 0], atol=1e-13)


def test_no_curvature_gives_the_closed_form():
    # s = -g sqrt(2 / (M |g|))
    g = np.array([3.0, -4.0])
    s = cubic_step(g, np.zeros((2, 2)), 0.1)
    np.testing.assert_allclose(s, -g * np.sqrt(2 / (0.1 * 5)), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kind_and_dtype_are_kept(backend, dtype):
    g = backend.asarray([0.3, -1.0], dtype)
    H = backend.asarray([[-1.0, 0.2], [0.2, 1.0]], dtype)
    s = cubic_step(g, H, 2.0)
    assert backend.owns(s, dtype)
    g, H = backend.numpy(g).astype(float), backend.numpy(H).astype(float)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    np.testing.assert_allclose(backend.numpy(s), cubic_step(g, H, 2.0), rtol=tolerance)


@pytest.mark.parametrize(
    "g, H, M, match",
    [
        (np.ones(2), np.eye(3), 1.0, "H must have the shape"),
        (np.ones(2), np.array([[1.0, 1.0], [0.0, 1.0]]), 1.0, "H must be symmetric"),
        (np.ones(2), np.eye(2), 0.0, "M must be a finite real number > 0"),
        (np.ones((2, 1)), np.eye(2), 1.0, "g must be 1-D"),
        (np.array([np.nan, 1.0]), np.eye(2), 1.0, "g must hold finite numbers"),
    ],
)
def test_bad_input_is_refused(g, H, M, match):
    with pytest.raises(ValueError, match=match):
        cubic_step(g, H, M)


# The methods


class Counted:
    """Functions of a problem that count their own calls, independently of lib."""

    def __init__(self, f, g, H):
        self.f, self.g, self.H = f, g, H
        self.nfev = self.njev = self.nhevp = self.nhev = 0

    def fun(self, x):
        self.nfev += 1
        return self.f(x)

    def jac(self, x):
        self.njev += 1
        return self.g(x)

    def hessp(self, x, v):
        self.nhevp += 1
        return self.H(x) @ v

    def hess(self, x):
        self.nhev += 1
        return self.H(x)

    def agrees(self, result):
        names = ("nfev", "njev", "nhevp", "nhev")
        return {n: getattr(self, n) for n in names} == {n: result[n] for n in names}


def quartic(h):
    """Return sum h x^2 / 2 + x^4 / 4, whose Hessian at zero is diag(h)."""
    return Counted(
        lambda x: float(h @ x**2 / 2 + np.sum(x**4) / 4),
        lambda x: h * x + x**3,
        lambda x: np.diag(h + 3 * x**2),
    )


def test_cubic_newton_decreases_by_the_cube_of_its_step():
    # With M = L2: f(x+) <= f(x) - M |s|^3 / 12 and |grad f(x+)| <= L2 |s|^2.
    rng = np.random.default_rng(0)
    h = rng.standard_normal(6)

    def f(x):  # the Hessian diag(h - sin x) has the Lipschitz constant 1
        return float(h @ x**2 / 2 + np.sum(np.sin(x)))

    def g(x):
        return h * x + np.cos(x)

    for _ in range(50):
        x = 3 * rng.standard_normal(6)
        s = cubic_step(g(x), np.diag(h - np.sin(x)), 1.0)
        length = np.linalg.norm(s)
        assert f(x + s) <= f(x) - length**3 / 12 + 1e-12
        assert np.linalg.norm(g(x + s)) <= length**2 + 1e-12


def test_cubic_newton_converges_quadratically_and_counts():
    h = np.array([1.0, 4.0, -1.0, 0.5])
    problem = quartic(h)
    result = minimize_nonconvex(
        problem.fun,
        np.array([0.4, -0.3, 0.2, 0.6]),
        jac=problem.jac,
        hess=problem.hess,
        method="cubic-newton",
        L2=12.0,
        tol=1e-12,
        alpha=1e-3,
    )
    assert result.success, result.message
    assert problem.agrees(result)
    assert problem.nhevp == 0
    np.testing.assert_allclose(result.x, [0, 0, 1, 0], atol=1e-11)
    assert result.lambda_min == pytest.approx(0.5)
    norms = result.history["grad_norm"][-5:]
    assert (norms[1:] < 30 * norms[:-1] ** 2).all()


@pytest.mark.parametrize("products", [True, False], ids=["products", "differences"])
def test_arc_needs_no_constants_and_counts(products):
    h = np.r_[np.linspace(0.5, 3, 20), -1.0]
    problem = quartic(h)
    result = minimize_nonconvex(
        problem.fun,
        np.random.default_rng(0).standard_normal(21),
        jac=problem.jac,
        hessp=problem.hessp if products else None,
        method="arc",
    )
    assert result.success, result.message
    assert result.certificate == "second-order"
    assert problem.agrees(result)
    assert abs(result.x[-1]) == pytest.approx(1, abs=1e-4)
    assert result.fun == pytest.approx(-0.25, abs=1e-9)


def test_arc_is_newtons_method_where_the_model_is_exact():
    # A convex quadratic: M falls at every step, and few steps are needed.
    h = np.linspace(1, 100, 30)
    problem = Counted(lambda x: h @ x**2 / 2, lambda x: h * x, lambda x: np.diag(h))
    result = minimize_nonconvex(
        problem.fun, np.ones(30), jac=problem.jac, hessp=problem.hessp, method="arc"
    )
    assert result.success
    assert result.nit < 15
    assert problem.agrees(result)


def test_arc_step_is_the_cubic_step_in_a_full_krylov_space():
    rng = np.random.default_rng(3)
    H, _ = matrix(np.array([-2.0, -0.5, 0.1, 1.0, 5.0]), 3)
    g = rng.standard_normal(5)
    oracle = Oracle(lambda x: 0.0, np.zeros(5), jac=lambda x: g, hess=lambda x: H)
    space = cubic._Krylov(oracle, oracle.x0, g)
    for _ in range(5):
        space.grow()
    for M in (0.1, 1.0, 30.0):
        s, promised = space.step(M)
        np.testing.assert_allclose(s, cubic_step(g, H, M), atol=1e-10)
        assert promised == pytest.approx(-model(s, g, H, M), rel=1e-10)


def test_arc_keeps_its_krylov_space_when_a_step_is_refused():
    H, _ = matrix(np.linspace(-1.0, 9.0, 40), 1)
    g = np.random.default_rng(1).standard_normal(40)
    oracle = Oracle(lambda x: 0.0, g, jac=lambda x: g, hessp=lambda x, v: H @ v)
    space = cubic._Krylov(oracle, oracle.x0, g)
    decreases = [space.step(M)[1] for M in (1e-2, 1.0, 1e2)]
    assert decreases[0] > decreases[1] > decreases[2] > 0
    assert oracle.nhevp == len(space.diagonal) < 40
    # and steps do get refused: Newton's step of sqrt(1 + x^2) leads far beyond zero
    problem = Counted(
        lambda x: float(np.sum(np.sqrt(1 + x**2))),
        lambda x: x / np.sqrt(1 + x**2),
        lambda x: np.diag((1 + x**2) ** -1.5),
    )
    x0 = np.array([30.0, -80.0])
    result = minimize_nonconvex(
        problem.fun, x0, jac=problem.jac, hessp=problem.hessp, method="arc"
    )
    assert result.success
    assert result.nfev > result.nit + 2  # values at refused points
    assert problem.agrees(result)


@pytest.mark.parametrize("method", ["cubic-newton", "arc"])
def test_methods_leave_an_exact_saddle(method):
    problem = quartic(np.array([2.0, 1.0, -0.5]))
    result = minimize_nonconvex(
        problem.fun,
        np.zeros(3),
        jac=problem.jac,
        hessp=problem.hessp if method == "arc" else None,
        hess=problem.hess if method == "cubic-newton" else None,
        method=method,
        L2=6.0,
    )
    assert result.certificate == "second-order"
    assert result.fun == pytest.approx(-0.0625, abs=1e-9)
    assert problem.agrees(result)


def test_torch_gives_torch(backend):
    x0 = backend.asarray([1.5, -0.4, 0.3])
    h = backend.asarray([2.0, 1.0, -0.5])
    for method in ("cubic-newton", "arc"):
        result = minimize_nonconvex(
            lambda x: (h * x**2 / 2 + x**4 / 4).sum(),
            x0,
            jac=lambda x: h * x + x**3,
            hessp=lambda x, v: (h + 3 * x**2) * v,
            method=method,
            L2=12.0,
        )
        assert result.success
        assert backend.owns(result.x, "float64")
        assert result.fun == pytest.approx(-0.0625, abs=1e-9)
