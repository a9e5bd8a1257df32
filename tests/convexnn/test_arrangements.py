"""Activation patterns: counted by a formula, by rays, by linear programs, by chance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from lib.convexnn import (
    arrangement_bound,
    count_arrangements,
    enumerate_arrangements,
    sample_arrangements,
)

SHAPES = [(5, 2), (10, 3), (20, 3), (50, 3), (20, 4), (9, 8), (3, 5), (4, 1)]


def columns(masks):
    return {tuple(column) for column in np.asarray(masks).T.tolist()}


def by_linear_programs(X):
    """All patterns of a small matrix, one hyperplane and one program at a time."""
    X = X[np.abs(X).max(axis=1) > 0]
    cells = [()]
    for k in range(len(X)):
        grown = []
        for cell in cells:
            for side in (False, True):
                signs = np.where([*cell, side], 1.0, -1.0)
                answer = linprog(
                    np.append(np.zeros(X.shape[1]), -1.0),
                    A_ub=np.column_stack([-signs[:, None] * X[: k + 1], 0 * signs + 1]),
                    b_ub=np.zeros(k + 1),
                    bounds=[(-1, 1)] * X.shape[1] + [(None, 1)],
                )
                if answer.x[-1] > 1e-9:
                    grown.append((*cell, side))
        cells = grown
    return set(cells)


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_number_of_patterns_is_covers_formula_in_general_position(n, d):
    X = np.random.default_rng(n).standard_normal((n, d))
    masks = enumerate_arrangements(X)
    assert masks.shape == (n, count_arrangements(n, min(n, d)))
    assert len(columns(masks)) == masks.shape[1]


@pytest.mark.parametrize("seed", range(6))
def test_patterns_are_those_found_by_linear_programs(seed):
    # Small integers: parallel, equal and zero rows, many points on one hyperplane.
    X = np.random.default_rng(seed).integers(-1, 2, (7, 3)).astype(float)
    used = np.abs(X).max(axis=1) > 0
    masks = enumerate_arrangements(X)
    assert columns(masks[used]) == by_linear_programs(X)
    assert masks[~used].all()


@given(st.integers(1, 7), st.integers(1, 4), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_gates_lie_strictly_inside_their_cells(n, d, bias, seed):
    X = np.random.default_rng(seed).integers(-2, 3, (n, d)).astype(float)
    masks, gates = enumerate_arrangements(X, bias=bias, return_gates=True)
    lifted = np.column_stack([X, np.ones(n)]) if bias else X
    used = np.abs(lifted).max(axis=1) > 0
    H = lifted[used] @ gates
    assert ((H > 0) == masks[used]).all()
    assert np.abs(H).min(initial=1.0) > 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_sampled_patterns_are_among_all_patterns(seed):
    X = np.random.default_rng(seed).standard_normal((8, 3))
    masks, gates = sample_arrangements(X, 300, seed, return_gates=True)
    assert columns(masks) <= columns(enumerate_arrangements(X))
    assert len(columns(masks)) == masks.shape[1]
    assert ((X @ gates >= 0) == masks).all()
    assert (sample_arrangements(X, 300, seed) == masks).all()


def test_the_bound_holds_wherever_it_is_stated():
    for n in range(2, 60):
        for r in range(1, n):
            assert count_arrangements(n, r) <= arrangement_bound(n, r)
    assert arrangement_bound(10**6, 10**3) == np.inf


def test_kind_and_device_are_kept(device):
    X = torch.tensor([[1.0, 2.0], [0.5, -1.0]], device=device)
    masks, gates = enumerate_arrangements(X, return_gates=True)
    assert masks.dtype == torch.bool
    assert gates.dtype == torch.float32
    assert masks.device == gates.device == X.device


def test_too_many_patterns_are_refused_with_their_number():
    X = np.random.default_rng(0).standard_normal((40, 5))
    with pytest.raises(ValueError, match=str(count_arrangements(40, 5))):
        enumerate_arrangements(X, max_cells=1000)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: count_arrangements(3, 4), ValueError),
        (lambda: count_arrangements(3.0, 2), TypeError),
        (lambda: arrangement_bound(3, 3), ValueError),
        (lambda: enumerate_arrangements(np.array([[np.nan, 1.0]])), ValueError),
        (lambda: enumerate_arrangements(np.zeros((0, 2))), ValueError),
        (lambda: sample_arrangements(np.eye(2), 0), ValueError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    with pytest.raises(error):
        call()
