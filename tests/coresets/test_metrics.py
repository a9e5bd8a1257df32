"""Metrics against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.coresets import (
    Gradients,
    effective_sample_size,
    facility_cost,
    matching_error,
)


def test_definitions(backend):
    rng = np.random.default_rng(0)
    P, H = rng.standard_normal((40, 3)), rng.random((40, 5))
    G = Gradients([(backend.asarray(P), backend.asarray(H))])
    g = (P[:, :, None] * H[:, None]).reshape(40, -1)
    S, w = np.array([3, 17, 5]), np.array([10.0, 20.0, 10.0])
    core = backend.asarray(S, "int64"), backend.asarray(w)
    error = np.linalg.norm(w @ g[S] - g.sum(0))
    assert matching_error(G, core) == pytest.approx(error)
    assert matching_error(G, core, relative=True) == pytest.approx(
        error / np.linalg.norm(g.sum(0))
    )
    cost = np.linalg.norm(g[:, None] - g[S], axis=2).min(1).sum()
    assert facility_cost(G, core) == pytest.approx(cost)
    assert matching_error(backend.asarray(g), core) == pytest.approx(error)


def test_a_subset_of_everything_costs_nothing():
    x = 1e4 + np.random.default_rng(0).standard_normal((30, 3))
    assert facility_cost(x, (np.arange(30),)) == 0
    assert matching_error(x, (np.arange(30), np.ones(30))) == 0


def test_single_precision_is_summed_in_double():
    # A sum of 200,000 equal numbers, of which float32 has seven digits.
    x = np.full((200_000, 1), 0.1, dtype=np.float32)
    error = matching_error(x, (np.array([0]), np.array([200_000.0], dtype=np.float32)))
    assert error < 1e-6


@given(st.lists(st.floats(0, 1e200), min_size=1, max_size=20))
def test_effective_sample_size_is_between_one_and_the_number_of_weights(w):
    w = np.array(w)
    if w.max() == 0:
        with pytest.raises(ValueError, match="w must"):
            effective_sample_size(w)
        return
    size = effective_sample_size(w)
    assert 1 - 1e-9 <= size <= (w > 0).sum() + 1e-9
    assert effective_sample_size(np.append(w, 0)) == pytest.approx(size)


@pytest.mark.parametrize(
    "call",
    [
        lambda: effective_sample_size([-1.0, 2.0]),
        lambda: effective_sample_size([]),
        lambda: facility_cost(np.eye(3), (np.array([3]),)),
        lambda: facility_cost(np.eye(3), (np.array([-1]),)),
        lambda: facility_cost(np.eye(3), (np.array([], dtype=int),)),
        lambda: matching_error(np.eye(3), (np.array([0, 1]), np.ones(1))),
        lambda: matching_error(np.eye(3), (np.array([0]), np.array([np.nan]))),
        lambda: matching_error(
            np.array([[1.0], [-1.0]]), (np.array([0]), np.ones(1)), relative=True
        ),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()
