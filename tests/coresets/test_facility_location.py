"""Greedy facility location against brute force and against its own definition."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.coresets import facility_location
from lib.coresets.facility_location import _greedy_torch, greedy


def value(S, picks, v=None):
    best = S[:, picks].max(axis=1)
    return float(best.sum() if v is None else best @ v)


def naive(S, k):
    # The definition: every candidate is evaluated in every step.
    picks, best, gains = [], np.zeros(len(S)), []
    for _ in range(k):
        gain = np.maximum(S - best[:, None], 0).sum(axis=0)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        gains.append(gain.max())
        best = np.maximum(best, S[:, picks[-1]])
    return picks, np.array(gains)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 12), st.booleans())
def test_greedy_is_greedy(seed, n, m, integers):
    rng = np.random.default_rng(seed)
    S = rng.random((n, m))
    if integers:  # exact, with many ties
        S = np.floor(4 * S)
    k = int(rng.integers(1, m + 1))
    picks, gains = facility_location(S, k)
    expected = naive(S, k)
    if integers:
        np.testing.assert_array_equal(picks, expected[0])
    np.testing.assert_allclose(gains, expected[1], atol=1e-10)
    assert len(set(picks.tolist())) == k
    assert gains.sum() == pytest.approx(value(S, picks))
    assert (np.diff(gains) <= 1e-10).all()


@pytest.mark.parametrize("seed", range(10))
def test_greedy_attains_its_guarantee_on_all_tiny_problems(seed):
    rng = np.random.default_rng(seed)
    S = rng.random((10, 9)) * rng.exponential(size=9) ** 2
    order = facility_location(S, 5)[0]
    for k in range(1, 6):
        best = max(value(S, list(c)) for c in combinations(range(9), k))
        share = value(S, order[:k]) / best
        # The bound for this k, which falls to 1 - 1/e.
        assert 1 - (1 - 1 / k) ** k - 1e-12 <= share <= 1 + 1e-12
        if k == 1:
            assert share == pytest.approx(1)


def test_stochastic_attains_its_guarantee_on_average():
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        S = rng.random((12, 10)) * rng.exponential(size=10) ** 2
        best = max(value(S, list(c)) for c in combinations(range(10), 3))
        picks = facility_location(S, 3, method="stochastic", eps=0.2, random_state=seed)
        assert len(set(picks[0].tolist())) == 3
        assert picks[1].sum() == pytest.approx(value(S, picks[0]))
        shares.append(value(S, picks[0]) / best)
    assert np.mean(shares) >= 1 - 1 / np.e - 0.2
    # With a sample of everything it is greedy.
    S = np.random.default_rng(0).random((30, 30))
    everything = facility_location(S, 1, method="stochastic", eps=1e-9, random_state=0)
    np.testing.assert_array_equal(everything[0], facility_location(S, 1)[0])


def test_two_rounds_come_near_one():
    x = np.random.default_rng(0).standard_normal((400, 3))
    D = np.linalg.norm(x[:, None] - x, axis=2)
    S = D.max() - D
    one, gains = facility_location(S, 20)
    two, added = facility_location(S, 20, method="partition", random_state=1)
    assert added.sum() == pytest.approx(value(S, two))
    assert D[:, two].min(1).sum() <= 1.1 * D[:, one].min(1).sum()
    rng = np.random.default_rng(2)
    chance = D[:, rng.choice(400, 20, replace=False)].min(1).sum()
    assert D[:, two].min(1).sum() < 0.9 * chance


def test_weights_of_rows_are_copies_of_rows():
    rng = np.random.default_rng(0)
    S, v = rng.random((15, 8)), rng.integers(0, 4, 15)
    picks, gains = greedy(S, 4, v)
    copies = greedy(np.repeat(S, v, axis=0), 4)
    np.testing.assert_array_equal(picks, copies[0])
    np.testing.assert_allclose(gains, copies[1])


def test_single_precision_loses_nothing():
    # Sums over rows are in float64: the value is that of double precision.
    x = np.random.default_rng(0).standard_normal((700, 4))
    D = np.linalg.norm(x[:, None] - x, axis=2)
    S = (D.max() - D).astype(np.float32)
    single, double = (facility_location(s, 70)[0] for s in (S, S.astype(float)))
    wide = S.astype(float)
    assert value(wide, single) == pytest.approx(value(wide, double), rel=1e-7)


def test_code_for_devices_selects_the_same(device):
    S = np.random.default_rng(0).random((50, 40))
    v = np.random.default_rng(1).random(50)
    for weights in (None, v):
        here = greedy(S, 12, weights)
        there = _greedy_torch(torch.tensor(S, device=device), 12, weights)
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_allclose(here[1], there[1])


@pytest.mark.parametrize("method", ["greedy", "stochastic", "partition"])
def test_kind_and_repetition(backend, method):
    S = backend.asarray(np.random.default_rng(0).random((30, 30)), "float32")
    a, b = (facility_location(S, 5, method=method, random_state=3) for _ in range(2))
    assert backend.owns(a[0], "int64")
    assert backend.owns(a[1], "float32")
    np.testing.assert_array_equal(backend.numpy(a[0]), backend.numpy(b[0]))


def test_negative_similarities_only_with_a_shift():
    S = np.random.default_rng(0).standard_normal((9, 9))
    with pytest.raises(ValueError, match="shift"):
        facility_location(S, 3)
    picks, gains = facility_location(S, 3, shift=True)
    moved = facility_location(S - S.min(), 3)
    np.testing.assert_array_equal(picks, moved[0])
    assert gains.sum() == pytest.approx(value(S, picks) - 9 * S.min())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"k": 0}, ValueError),
        ({"k": 6}, ValueError),
        ({"k": 2.0}, TypeError),
        ({"method": "lazy"}, ValueError),
        ({"eps": 1.0}, ValueError),
        ({"eps": 0.0}, ValueError),
        ({"shift": 1}, TypeError),
        ({"S": np.full((5, 5), np.nan)}, ValueError),
        ({"S": np.ones((0, 5))}, ValueError),
        ({"S": np.ones((4, 5)), "method": "partition"}, ValueError),
        ({"random_state": "a"}, TypeError),
    ],
)
def test_bad_arguments_are_refused(change, error):
    with pytest.raises(error):
        facility_location(**({"S": np.ones((5, 5)), "k": 2} | change))
