"""Tomography: Pauli algebra, the map and its adjoint, gradients, exact recovery."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.acceleration import (
    PauliMeasurements,
    fidelity,
    mifgd,
    pauli_matrix,
    quantum_state,
)

STATES = ("ghz", "hadamard", "random")


def complex_matrix(rng, *shape):
    return rng.standard_normal((*shape, 2)) @ [1.0, 1j]


def projector(psi):
    return np.outer(psi, psi.conj())


def random_density(qubits, rank, seed):
    U = complex_matrix(np.random.default_rng(seed), 2**qubits, rank)
    rho = U @ U.conj().T
    return rho / np.trace(rho).real


# Pauli strings


def test_paulis_are_hermitian_unitary_and_orthogonal():
    strings = ["".join(s) for s in itertools.product("IXYZ", repeat=3)]
    P = np.array([pauli_matrix(s) for s in strings])
    np.testing.assert_array_equal(P, P.conj().transpose(0, 2, 1))
    np.testing.assert_allclose(P @ P, np.broadcast_to(np.eye(8), P.shape))
    gram = np.einsum("aij,bji->ab", P, P)
    np.testing.assert_allclose(gram, 8 * np.eye(64), atol=1e-14)


def test_paulis_anticommute_and_multiply():
    X, Y, Z = (pauli_matrix(s) for s in "XYZ")
    np.testing.assert_array_equal(X @ Y, 1j * Z)
    np.testing.assert_array_equal(X @ Z, -Z @ X)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_map_and_adjoint_equal_the_dense_ones(qubits, seed):
    rng = np.random.default_rng(seed)
    A = PauliMeasurements.random(qubits, rng.integers(1, 4**qubits + 1), random_state=1)
    P = np.array([pauli_matrix(s) for s in A.labels])
    rho = random_density(qubits, 2, seed)
    dense = A.scale * np.einsum("aij,ji->a", P, rho).real
    np.testing.assert_allclose(A.forward(rho), dense, atol=1e-13)
    y = rng.standard_normal(len(P))
    np.testing.assert_allclose(
        A.adjoint(y), A.scale * np.einsum("a,aij->ij", y, P), atol=1e-12
    )


@pytest.mark.parametrize("qubits", [1, 3, 6])
def test_adjoint_identity(qubits):
    rng = np.random.default_rng(0)
    A = PauliMeasurements.random(qubits, 2**qubits + 1, random_state=0)
    M = complex_matrix(rng, 2**qubits, 2**qubits)
    M, y = M + M.conj().T, rng.standard_normal(2**qubits + 1)
    left, right = A.forward(M) @ y, np.vdot(M, A.adjoint(y))
    assert abs(right.imag) < 1e-10 and left == pytest.approx(right.real)


def test_all_strings_are_an_isometry_and_few_are_one_on_average():
    rho = random_density(3, 2, 0)
    whole = PauliMeasurements.random(3)
    np.testing.assert_allclose(whole.adjoint(whole.forward(rho)), rho, atol=1e-14)
    squares = [
        np.sum(PauliMeasurements.random(3, 20, random_state=s).forward(rho) ** 2)
        for s in range(2000)
    ]
    error = 4.5 * np.std(squares) / np.sqrt(len(squares))
    assert abs(np.mean(squares) - np.linalg.norm(rho) ** 2) < error


def test_random_strings_are_different_and_repeat_with_the_seed():
    a, b = (PauliMeasurements.random(4, 200, random_state=3) for _ in range(2))
    assert a.labels == b.labels and len(set(a.labels)) == 200
    assert set(PauliMeasurements.random(2).labels) == {
        x + y for x in "IXYZ" for y in "IXYZ"
    }


def test_shots_are_unbiased_with_the_binomial_variance():
    rho, shots, repeats = random_density(2, 1, 1), 50, 3000
    A, rng = PauliMeasurements.random(2), np.random.default_rng(0)
    y = np.array([A.sample(rho, shots, random_state=rng) for _ in range(repeats)])
    mean = A.forward(rho) / A.scale
    variance = A.scale**2 * (1 - mean**2) / shots
    # the identity always gives one: no variance at all
    assert (abs(y.mean(0) - A.forward(rho)) <= 5 * np.sqrt(variance / repeats)).all()
    np.testing.assert_allclose(y.var(0), variance, rtol=0.15, atol=1e-12)


# States


@pytest.mark.parametrize("name", STATES)
def test_states_are_unit_vectors(name):
    psi = quantum_state(name, 5, random_state=0)
    assert psi.shape == (32,) and np.linalg.norm(psi) == pytest.approx(1)


def test_ghz_and_hadamard_have_their_stabilisers():
    def value(name, label):
        psi = quantum_state(name, len(label))
        return np.vdot(psi, pauli_matrix(label) @ psi).real

    for label, expected in (("XXX", 1), ("ZZI", 1), ("XYY", -1), ("ZII", 0)):
        assert value("ghz", label) == pytest.approx(expected)
    for label, expected in (("XIX", 1), ("ZII", 0), ("YYI", 0)):
        assert value("hadamard", label) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_fidelity_is_symmetric_between_0_and_1_and_agrees_on_pure_states(s, r1, r2):
    a, b = random_density(2, r1, s), random_density(2, r2, s + 1)
    F = fidelity(a, b)
    assert -1e-12 <= F <= 1 + 1e-9 and fidelity(b, a) == pytest.approx(F, abs=1e-7)
    assert fidelity(a, a) == pytest.approx(1, abs=1e-6)
    # Fuchs and van de Graaf
    distance = np.abs(np.linalg.eigvalsh(a - b)).sum() / 2
    assert 1 - np.sqrt(F) <= distance + 1e-7
    assert distance <= np.sqrt(max(1 - F, 0)) + 1e-6
    psi = quantum_state("random", 2, random_state=s)
    assert fidelity(psi, a) == pytest.approx(fidelity(projector(psi), a), abs=1e-6)
    assert fidelity(a, psi) == fidelity(psi, a)
    phi = quantum_state("random", 2, random_state=s + 1)
    assert fidelity(psi, phi) == pytest.approx(fidelity(psi, projector(phi)))


# The method


def objective(A, y, U):
    return np.sum((A.forward(U @ U.conj().T) - y) ** 2) / 2


@pytest.mark.parametrize("rank", [1, 3])
def test_one_step_is_along_the_gradient_of_the_factored_objective(rank):
    # For real directions E and iE: d f(U + tE)/dt = 2 Re <E, A*(residual) U>.
    rng = np.random.default_rng(rank)
    A = PauliMeasurements.random(3, 30, random_state=0)
    U, y = complex_matrix(rng, 8, rank), rng.standard_normal(30)
    found = mifgd(A, y, rank, start=U, step_size=1e-3, max_iter=1, tol=1e-300)
    step = (U - found.x) / 1e-3
    E, h = complex_matrix(rng, 8, rank), 1e-5
    for direction in (E, 1j * E):
        slope = objective(A, y, U + h * direction) - objective(A, y, U - h * direction)
        exact = 2 * np.vdot(direction, step).real
        assert slope / (2 * h) == pytest.approx(exact, rel=1e-6)


def test_equals_the_update_written_out():
    rng = np.random.default_rng(0)
    A = PauliMeasurements.random(3, 40, random_state=0)
    P = [pauli_matrix(s) for s in A.labels]
    y, U = A.forward(random_density(3, 2, 0)), complex_matrix(rng, 8, 2) / 4
    seen = []
    mifgd(
        A, y, 2, start=U, momentum=0.6, step_size=0.1, max_iter=5, tol=1e-300,
        callback=seen.append,
    )  # fmt: skip
    Z = U
    for t in range(5):
        rho = Z @ Z.conj().T
        misfit = [
            A.scale * np.trace(p @ rho).real - v for p, v in zip(P, y, strict=True)
        ]
        G = A.scale * sum(m * p for m, p in zip(misfit, P, strict=True))
        new = Z - 0.1 * G @ Z
        Z, U = new + 0.6 * (new - U), new
        np.testing.assert_allclose(seen[t + 1], U, atol=1e-13)
    assert len(seen) == 6


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("start", ["spectral", "random"])
def test_noiseless_pure_states_are_recovered(start, momentum):
    for seed in range(3):
        psi = quantum_state("random", 4, random_state=seed)
        A = PauliMeasurements.random(4, 150, random_state=seed)
        found = mifgd(
            A, A.forward(projector(psi)), start=start, momentum=momentum,
            max_iter=4000, random_state=seed,
        )  # fmt: skip
        assert found.success and found.fun < 1e-13
        assert fidelity(psi, found.density) > 1 - 1e-10
        np.testing.assert_allclose(found.density, projector(psi), atol=1e-6)


def test_noiseless_mixed_states_are_recovered_by_their_rank():
    rho = random_density(4, 2, 0)
    A = PauliMeasurements.random(4, 220, random_state=0)
    found = mifgd(A, A.forward(rho), 2, momentum=0.5, max_iter=5000)
    np.testing.assert_allclose(found.density, rho, atol=1e-6)
    short = mifgd(A, A.forward(rho), 1, momentum=0.5, max_iter=5000)
    assert short.success and np.linalg.norm(short.density - rho) > 0.1


def test_density_is_a_state_even_from_noise():
    rho = random_density(3, 3, 0)
    A = PauliMeasurements.random(3, 60, random_state=0)
    y = A.sample(rho, 20, random_state=0)
    found = mifgd(A, y, 3, momentum=0.5, max_iter=50, start="random", random_state=0)
    D = found.density
    np.testing.assert_allclose(D, D.conj().T, atol=1e-15)
    assert np.linalg.eigvalsh(D).min() > -1e-12 and np.trace(D).real == pytest.approx(1)
    assert not found.success and found.status == 1 and "50 steps" in found.message


def curvatures(A, psi):
    """Eigenvalues of the step linearised at a pure state, in real coordinates."""
    N = len(psi)
    basis = np.concatenate([np.eye(N), 1j * np.eye(N)])
    columns = [
        A.adjoint(A.forward(np.outer(e, psi.conj()) + np.outer(psi, e.conj()))) @ psi
        for e in basis
    ]
    J = np.array(columns).T
    return np.linalg.eigvalsh(np.concatenate([J.real, J.imag]))


def test_curvatures_at_a_fully_measured_state_are_0_1_and_2():
    values = curvatures(PauliMeasurements.random(3), quantum_state("random", 3))
    np.testing.assert_allclose(values, [0.0] + [1.0] * 14 + [2.0], atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.75])
def test_the_linear_rate_is_that_of_the_linearised_step(momentum):
    psi = quantum_state("random", 3, random_state=2)
    A, eta, errors = PauliMeasurements.random(3, 40, random_state=0), 0.2, []
    rho = projector(psi)
    mifgd(
        A, A.forward(rho), momentum=momentum, step_size=eta, tol=1e-12, max_iter=4000,
        callback=lambda U: errors.append(np.linalg.norm(U @ U.conj().T - rho)),
    )  # fmt: skip
    errors = np.array(errors)
    errors = errors[(errors < 1e-4) & (errors > 1e-10)]
    measured = (errors[-1] / errors[0]) ** (1 / (len(errors) - 1))
    roots = [
        np.abs(np.roots([1, -(1 + momentum) * (1 - eta * c), momentum * (1 - eta * c)]))
        for c in curvatures(A, psi)
        if c > 1e-10  # the phase does not count
    ]
    assert measured == pytest.approx(np.max(roots), abs=0.02)


def test_divergence_is_said():
    A = PauliMeasurements.random(2)
    y = A.forward(random_density(2, 1, 0))
    found = mifgd(A, y, start=np.ones((4, 1)), step_size=1e3, max_iter=100)
    assert not found.success and found.status == 2 and np.isfinite(found.x).all()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: pauli_matrix(""), ValueError, "a label must be"),
        (lambda: pauli_matrix("XQ"), ValueError, "a label must be"),
        (lambda: pauli_matrix("X" * 11), ValueError, "1 to 10 letters"),
        (lambda: quantum_state("cat", 2), ValueError, "name must be one of"),
        (lambda: quantum_state("ghz", 0), ValueError, "qubits must be"),
        (lambda: quantum_state("ghz", 11), ValueError, "qubits must be at most 10"),
        (lambda: PauliMeasurements(["X", "XX"]), ValueError, "one length"),
        (lambda: PauliMeasurements([]), ValueError, "one length"),
        (lambda: PauliMeasurements(["X", "X"]), ValueError, "different"),
        (lambda: PauliMeasurements.random(1, 5), ValueError, "count must be at most"),
        (lambda: fidelity(np.ones(2), np.ones((2, 3))), ValueError, "b must be"),
        (lambda: fidelity(np.ones(2), np.ones(4)), ValueError, "one size"),
    ],
)
def test_bad_states_and_measurements_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"measurements": "XX"}, TypeError, "measurements must be"),
        ({"y": np.ones(3)}, ValueError, "y must hold 4 finite numbers"),
        ({"y": [1, 0, 0, np.nan]}, ValueError, "y must hold 4 finite numbers"),
        ({"y": [-1, 0, 0, 0]}, ValueError, "start='spectral' must have data"),
        ({"rank": 3}, ValueError, "rank must be at most"),
        ({"rank": 1.0}, TypeError, "rank must be"),
        ({"momentum": 1.0}, ValueError, "momentum must be below 1"),
        ({"momentum": -0.1}, ValueError, "momentum must be"),
        ({"step_size": 0.0}, ValueError, "step_size must be"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"start": "warm"}, ValueError, "start must be one of"),
        ({"start": np.ones((2, 2))}, ValueError, "start must be finite"),
    ],
)
def test_bad_options_are_refused(change, error, match):
    arguments = {
        "measurements": PauliMeasurements.random(1),
        "y": np.array([1.0, 0, 0, 1.0]),
    } | change
    with pytest.raises(error, match=match):
        mifgd(arguments.pop("measurements"), arguments.pop("y"), **arguments)
