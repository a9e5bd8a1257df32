"""Every word of every kind, on samples whose interval is known."""

import numpy as np
import pytest
from scipy import stats

from lib.replication.verdicts import decide, interval

NEAR = [0.49, 0.50, 0.51]  # mean 0.5, half-width 4.3027 * 0.01 / sqrt(3) = 0.0248


def test_interval_is_students():
    x = np.random.default_rng(0).standard_normal(7)
    expected = stats.t.interval(0.95, 6, loc=x.mean(), scale=stats.sem(x))
    assert interval(x) == pytest.approx((x.mean(), *expected), rel=1e-12)


def test_interval_covers_95_percent():
    rng = np.random.default_rng(1)
    ends = np.array([interval(rng.standard_normal(5))[1:] for _ in range(2000)])
    covered = np.mean((ends[:, 0] <= 0) & (0 <= ends[:, 1]))
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("kind", ["value", "slope"])
@pytest.mark.parametrize(
    "published, tolerance, word",
    [
        (0.5, 0.03, "reproduced"),
        (0.5, 0.02, "inconclusive"),  # the interval is wider than the band
        (0.53, 0.02, "inconclusive"),
        (0.6, 0.05, "contradicted"),
        (0.4, 0.05, "contradicted"),
        (0.6, 0.08, "inconclusive"),
        (0.5, 0.0, "inconclusive"),
    ],
)
def test_value_and_slope(kind, published, tolerance, word):
    found = decide(kind, NEAR, published=published, tolerance=tolerance, tier="full")
    assert found.word == word
    assert (found.n, found.tier) == (3, "full")
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.475159, 0.524841), abs=1e-6)


@pytest.mark.parametrize(
    "shift, tolerance, word",
    [
        (0.5, 0.0, "reproduced"),
        (0.0, 0.0, "contradicted"),
        (0.25, 0.0, "reproduced"),
        (0.5, 0.499, "inconclusive"),
        (0.5, 0.9, "contradicted"),  # a gain, but not the gain claimed
        (0.01, -0.6, "reproduced"),  # no worse than by 0.6
    ],
)
def test_order(shift, tolerance, word):
    samples = np.array(NEAR) - 0.5 + shift if shift else -np.array(NEAR)
    assert decide("order", samples, tolerance=tolerance).word == word
    spread = np.array([-1.0, 2.0, -1.0, 2.0])
    assert decide("order", spread).word == "inconclusive"


@pytest.mark.parametrize(
    "kind, samples, tolerance, word, value, n",
    [
        ("bound", [-1.0, -0.2, 0.0], 0.0, "reproduced", 0.0, 3),
        ("bound", [-1.0, 1e-3, -2.0], 0.0, "contradicted", 1e-3, 3),
        ("bound", [-1.0, 1e-3, -2.0], 1e-2, "reproduced", 1e-3, 3),
        ("bound", [-1.0], 0.0, "reproduced", -1.0, 1),
        ("identity", [1e-12, -3e-12], 1e-11, "reproduced", 3e-12, 2),
        ("identity", [1e-12, -3e-2], 1e-11, "contradicted", 3e-2, 2),
        ("identity", 1e-12, 1e-11, "reproduced", 1e-12, 1),
        ("quality", [True, True], 0.0, "reproduced", 1.0, 2),
        ("quality", [False, False], 0.0, "contradicted", 0.0, 2),
        ("quality", [True, False, True, True], 0.0, "inconclusive", 0.75, 4),
    ],
)
def test_bound_identity_quality(kind, samples, tolerance, word, value, n):
    found = decide(kind, samples, tolerance=tolerance)
    assert (found.word, found.value, found.n) == (word, value, n)
    assert found.low is found.high is None


@pytest.mark.parametrize("kind", ["value", "slope", "order", "quality"])
@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_one_seed_says_neither_reproduced_nor_contradicted(kind, sample):
    found = decide(kind, [sample], published=1.0, tolerance=0.1)
    assert (found.word, found.reason, found.n) == ("inconclusive", "one seed", 1)
    assert found.value == sample


@pytest.mark.parametrize(
    "kind", ["value", "slope", "order", "bound", "identity", "quality"]
)
@pytest.mark.parametrize("samples", [[], [1.0, np.nan, 1.0], [np.inf, 1.0]])
def test_no_sample_and_no_number_decide_nothing(kind, samples):
    found = decide(kind, samples, published=1.0, tolerance=0.1)
    assert found.word == "inconclusive" and found.n == len(samples)
    assert ("not finite" if samples else "no sample") in found.reason
    assert found.value is None


@pytest.mark.parametrize("n", [2, 3, 7])
def test_equal_samples_are_decided_exactly(n):
    samples = [0.1] * n  # their floating-point mean is not always 0.1
    exact = decide("value", samples, published=0.1, tolerance=0.0)
    assert exact.word == "reproduced" and "all seeds agree" in exact.reason
    assert exact.low == exact.high == exact.value == 0.1
    assert decide("value", samples, published=0.2).word == "contradicted"
    assert decide("order", samples).word == "reproduced"
    assert decide("order", samples, tolerance=0.1).word == "inconclusive"
    assert decide("order", [0.0] * n).word == "inconclusive"


def test_bad_samples_are_refused():
    with pytest.raises(ValueError, match="one number a seed"):
        decide("order", np.ones((2, 2)))
    with pytest.raises(ValueError, match="True or False"):
        decide("quality", [0.5, 1.0])
    with pytest.raises(ValueError, match="kind must be"):
        decide("vibe", [1.0])
