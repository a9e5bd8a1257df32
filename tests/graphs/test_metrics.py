"""Measures of an estimated Laplacian against scikit-learn and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from lib.graphs import Graphon, average_precision, f_score, relative_error


def laplacian_of(weights):
    p = int((1 + np.sqrt(1 + 8 * len(weights))) // 2)
    A = np.zeros((p, p))
    A[np.triu_indices(p, 1)] = weights
    A = A + A.T
    return np.diag(A.sum(axis=0)) - A


def problem(seed=0, p=9, ties=True):
    truth = Graphon.erdos_renyi(0.4).sample(p, rng=seed).laplacian
    rng = np.random.default_rng(seed)
    w = np.maximum(0, rng.normal(0.2, 1.0, p * (p - 1) // 2))
    if ties:
        w = np.round(w, 1)
    return laplacian_of(w), truth


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), p=st.integers(3, 12), ties=st.booleans())
def test_scores_equal_those_of_scikit_learn(seed, p, ties):
    estimate, truth = problem(seed, p, ties)
    pairs = np.triu_indices(p, 1)
    edges, scores = truth[pairs] < 0, -estimate[pairs]
    # rounding moves equal sums of ranks a little
    assert np.isclose(
        average_precision(estimate, truth), average_precision_score(edges, scores)
    )
    assert np.isclose(f_score(estimate, truth), f1_score(edges, scores > 0.1))


def test_perfect_and_empty_estimates():
    estimate, truth = problem()
    pairs = np.triu_indices(len(truth), 1)
    share = np.mean(truth[pairs] < 0)
    assert average_precision(truth, truth) == f_score(truth, truth) == 1.0
    assert relative_error(truth, truth) == 0.0
    nothing = np.zeros_like(truth)
    # all pairs tie: precision is the share of edges
    assert np.isclose(average_precision(nothing, truth), share)
    assert f_score(nothing, truth) == 0.0 and relative_error(nothing, truth) == 1.0


def test_relative_error_is_a_scaled_distance():
    estimate, truth = problem()
    a, b = relative_error(estimate, truth), relative_error(7 * estimate, 7 * truth)
    assert np.isclose(a, b)
    assert np.isclose(a, np.linalg.norm(estimate - truth) / np.linalg.norm(truth))


def test_threshold_counts_in_units_of_weight():
    truth = laplacian_of([1.0, 1.0, 0.0])
    estimate = laplacian_of([0.5, 0.2, 0.3])
    assert np.isclose(f_score(estimate, truth, threshold=0.0), 4 / 5)
    assert np.isclose(f_score(estimate, truth, threshold=0.25), 2 / 4)
    assert np.isclose(f_score(estimate, truth, threshold=0.4), 2 / 3)
    assert np.isclose(f_score(estimate, truth, threshold=0.5), 0.0)  # strictly above


@pytest.mark.parametrize("measure", [relative_error, f_score, average_precision])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_and_kinds(measure, dtype, backend):
    many = [problem(s, 7) for s in range(6)]
    estimates = np.array([e for e, _ in many]).reshape(2, 3, 7, 7)
    truth = many[0][1]
    loop = np.array([measure(e, truth) for e in estimates.reshape(6, 7, 7)])
    got = measure(backend.asarray(estimates, dtype), backend.asarray(truth, dtype))
    assert got.shape == (2, 3)
    assert np.allclose(backend.numpy(got).ravel(), loop, rtol=1e-5)
    assert backend.owns(got, dtype)


@pytest.mark.parametrize("measure", [relative_error, f_score, average_precision])
def test_bad_input_is_refused(measure):
    import torch

    estimate, truth = problem()
    with pytest.raises(ValueError, match="edges"):
        measure(estimate, np.zeros_like(truth))
    with pytest.raises(ValueError, match="same number of nodes"):
        measure(estimate[:4, :4], truth)
    with pytest.raises(ValueError, match="shape"):
        measure(estimate[:4], truth)
    with pytest.raises(ValueError, match="finite"):
        measure(np.full_like(truth, np.nan), truth)
    with pytest.raises(TypeError, match="both"):
        measure(torch.tensor(estimate), truth)
    with pytest.raises(ValueError, match="threshold"):
        f_score(estimate, truth, threshold=-1.0)
