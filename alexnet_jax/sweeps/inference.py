"""The tests and intervals of a comparison, on plain arrays of differences: thin forms of what scipy and statsmodels have."""

import functools
from typing import Any

import numpy as np

from alexnet_jax.sweeps.plan import ALPHA

CONFIDENCE, POWER = 0.95, 0.8
"""Of the intervals, and the power at which a difference counts as detectable."""

FLIPS = 9_999
"""Sign flips drawn at random where there are more than this many, that is from 14 seeds on; below all are gone through."""

RESAMPLES, BATCH = 2_000, 50
"""Bootstrap samples of the test images, and how many are held in memory at once (4 MB for 10,000 images)."""


def is_exact(seeds: int) -> bool:
    """Whether the sign-flip test of so many pairs goes through all sign flips."""
    return 2**seeds <= FLIPS


def sign_flip(found: np.ndarray) -> float:
    """Two-sided p that differences [pairs] are as likely to have either sign; exact up to 13 pairs."""
    from scipy import stats

    def mean(values: np.ndarray, axis: int) -> np.ndarray:
        return np.round(np.mean(values, axis=axis), 9)  # The order of summing must not tell equal means apart.

    options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": FLIPS, "vectorized": True}
    return float(stats.permutation_test((found,), mean, rng=np.random.default_rng(0), **options).pvalue)


def holm(tests: dict[str, float | None]) -> dict[str, float | None]:
    """p by arm, corrected over the whole family: an arm without a result counts with p = 1, or the others gain when it fails."""
    from statsmodels.stats.multitest import multipletests

    if not tests:
        return {}
    full = [1.0 if p is None else p for p in tests.values()]
    corrected = np.asarray(multipletests(full, alpha=ALPHA, method="holm")[1]).tolist()
    return {arm: None if tests[arm] is None else p for arm, p in zip(tests, corrected, strict=True)}


def interval(found: np.ndarray) -> tuple[float, float]:
    """95 % t interval of the mean of differences [pairs]."""
    from scipy import stats

    if np.ptp(found) == 0:  # The limit of a small spread; scipy would divide by zero.
        return float(found[0]), float(found[0])
    limits = stats.ttest_1samp(found, 0).confidence_interval(CONFIDENCE)
    return float(limits.low), float(limits.high)


def equivalence(found: np.ndarray, margin: float) -> float:
    """p of two one-sided t tests that the mean of differences [pairs] lies within the margin."""
    from statsmodels.stats.weightstats import DescrStatsW

    if np.ptp(found) == 0:  # The limit again.
        return 0.0 if abs(found[0]) < margin else 1.0
    return float(DescrStatsW(found).ttost_mean(-margin, margin)[0])


@functools.cache
def effect_size(pairs: int) -> float:
    """Detectable difference in standard deviations of the differences."""
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().solve_power(nobs=pairs, alpha=ALPHA, power=POWER, alternative="two-sided"))


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's r of two series [n]; None below three values or without spread."""
    from scipy import stats

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.asarray(stats.pearsonr(one, other))[0])


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean of values [n]."""
    from scipy import stats

    options: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": BATCH, "method": "percentile", "vectorized": True}
    limits = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0), **options).confidence_interval
    return float(limits.low), float(limits.high)
