"""The rules that turn samples into a verdict. Nothing here reads a file."""

import math
from dataclasses import dataclass

import numpy as np

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_RUN = "not run"
WORDS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_RUN)


@dataclass(frozen=True)
class Verdict:
    """
    A word, and the numbers it rests on.

    Attributes
    ----------
    word : str
        One of `WORDS`.
    value : float or None
        Mean (value, slope, order), largest slack (bound), largest error (identity)
        or fraction of seeds (quality).
    low, high : float or None
        95 % t-interval of the mean, where there is one.
    n : int or None
        Number of seeds or trials.
    tier : str
        Tier of the samples, or ``"check"`` for a test.
    reason : str
        Why, in a few words.
    """

    word: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    tier: str = ""
    reason: str = ""


def interval(samples, level=0.95):
    """
    Return the mean and Student's interval for it.

    ``mean -+ t_{n-1} s / sqrt(n)`` with the sample standard deviation ``s``.

    Parameters
    ----------
    samples : array of shape (n,)
        One number a seed, n >= 2.
    level : float
        Coverage.

    Returns
    -------
    mean, low, high : float
        The mean and the ends of the interval.
    """
    from scipy.special import stdtrit  # a tenth of the cost of scipy.stats

    samples = np.asarray(samples, float)
    if np.ptp(samples) == 0:  # rounding in the mean must not open the interval
        return (float(samples[0]),) * 3
    n, mean = len(samples), float(np.mean(samples))
    t = float(stdtrit(n - 1, 0.5 + level / 2))
    half = t * float(np.std(samples, ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def decide(kind, samples, *, published=None, tolerance=0.0, tier=""):
    """
    Apply the rule of one kind of claim.

    - value, slope: the interval lies inside published -+ tolerance (reproduced),
      outside it (contradicted), or straddles an end.
    - order: samples are paired differences. The interval lies above the tolerance
      (reproduced), below it (contradicted), or holds it.
    - bound: samples are slacks, one a trial, at most the tolerance if the bound holds.
    - identity: samples are relative errors, the largest at most the tolerance.
    - quality: samples are True or False. All True is reproduced, all False
      contradicted.

    One seed decides neither value, slope, order nor quality. A deterministic quantity
    belongs to bound or identity, whose trials are no seeds.

    Parameters
    ----------
    kind : str
        One of the six above.
    samples : array of shape (n,)
        What the metric returned.
    published : float
        The published number, for value and slope.
    tolerance : float
        The tolerance.
    tier : str
        Tier of the samples, passed on.

    Returns
    -------
    Verdict
        The word, its numbers and its reason.

    Raises
    ------
    ValueError
        If the samples are not one-dimensional, the kind is unknown, or a quality is
        not True or False.
    """
    if kind not in _RULES:
        raise ValueError(f"kind must be one of {sorted(_RULES)}, got {kind!r}")
    samples = np.atleast_1d(np.asarray(samples, float))
    if samples.ndim != 1:
        raise ValueError(f"a metric returns one number a seed, got {samples.shape}")
    n = len(samples)
    bad = int(np.sum(~np.isfinite(samples)))
    if n == 0:
        return Verdict(INCONCLUSIVE, n=0, tier=tier, reason="the metric gave no sample")
    if bad:
        reason = f"{bad} of {n} samples are not finite"
        return Verdict(INCONCLUSIVE, n=n, tier=tier, reason=reason)
    found = _RULES[kind](samples, published, tolerance)
    if n == 1 and kind not in ("bound", "identity"):
        found = {"word": INCONCLUSIVE, "value": found["value"], "reason": "one seed"}
    elif n > 1 and kind in ("value", "slope", "order") and np.ptp(samples) == 0:
        found["reason"] += "; all seeds agree exactly"
    return Verdict(n=n, tier=tier, **found)


def _value(samples, published, tolerance):
    if len(samples) == 1:
        return {"value": float(samples[0])}
    mean, low, high = interval(samples)
    found = {"value": mean, "low": low, "high": high}
    band = f"{published:g} \N{PLUS-MINUS SIGN} {tolerance:g}"
    if published - tolerance <= low and high <= published + tolerance:
        return found | {"word": REPRODUCED, "reason": f"interval inside {band}"}
    if high < published - tolerance or published + tolerance < low:
        return found | {"word": CONTRADICTED, "reason": f"interval outside {band}"}
    return found | {"word": INCONCLUSIVE, "reason": f"interval only partly in {band}"}


def _order(samples, _, tolerance):
    if len(samples) == 1:
        return {"value": float(samples[0])}
    mean, low, high = interval(samples)
    found = {"value": mean, "low": low, "high": high}
    if low > tolerance:
        return found | {"word": REPRODUCED, "reason": f"interval above {tolerance:g}"}
    if high < tolerance:
        return found | {"word": CONTRADICTED, "reason": f"interval below {tolerance:g}"}
    return found | {"word": INCONCLUSIVE, "reason": f"interval holds {tolerance:g}"}


def _bound(samples, _, tolerance):
    n, violations = len(samples), int(np.sum(samples > tolerance))
    return {
        "word": CONTRADICTED if violations else REPRODUCED,
        "value": float(np.max(samples)),
        "reason": f"{violations or 'no'} violation{'s' * (violations > 1)} in {n} "
        f"trial{'s' * (n > 1)}",
    }


def _identity(samples, _, tolerance):
    largest = float(np.max(np.abs(samples)))
    holds = largest <= tolerance
    side = "within" if holds else "above"
    return {
        "word": REPRODUCED if holds else CONTRADICTED,
        "value": largest,
        "reason": f"largest relative error {side} {tolerance:g}",
    }


def _quality(samples, *_):
    if not np.isin(samples, (0, 1)).all():
        raise ValueError(f"a quality is True or False for each seed, got {samples}")
    n, true = len(samples), int(np.sum(samples))
    word = {n: REPRODUCED, 0: CONTRADICTED}.get(true, INCONCLUSIVE)
    return {"word": word, "value": true / n, "reason": f"true for {true} of {n} seeds"}


_RULES = {
    "value": _value,
    "slope": _value,
    "order": _order,
    "bound": _bound,
    "identity": _identity,
    "quality": _quality,
}
