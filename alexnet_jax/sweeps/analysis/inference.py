"""The tests and intervals of a comparison, on arrays of differences; thin wrappers of scipy and statsmodels."""

import functools
import itertools
from typing import Any

import numpy as np

from alexnet_jax.sweeps.plan import ALPHA, smallest_p

CONFIDENCE, POWER = 0.95, 0.8
"""Confidence of the intervals, and the power at which a difference counts as detectable."""

FLIPS = 9_999
"""Number of random sign flips when there are more, that is from 14 seeds on; otherwise all are enumerated."""

RESAMPLES, BATCH = 2_000, 50
"""Number of bootstrap samples of the test images, and of those held in memory at once (4 MB for 10,000 images)."""


def is_exact(seeds: int) -> bool:
    """Return whether the sign-flip test of this number of pairs enumerates all sign flips."""
    return 2**seeds <= FLIPS


def sign_flip(found: np.ndarray) -> float:
    """Return the two-sided p of the sign-flip test on differences [pairs]; exact up to 13 pairs."""
    from scipy import stats

    def mean(values: np.ndarray, axis: int) -> np.ndarray:
        return np.round(np.mean(values, axis=axis), 9)  # Equal means must be equal whatever the order of summation.

    options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": FLIPS, "vectorized": True}
    return float(stats.permutation_test((found,), mean, rng=np.random.default_rng(0), **options).pvalue)


def holm(tests: dict[str, float | None]) -> dict[str, float | None]:
    """Return {arm: p} after Holm's correction. An arm without a result counts as p = 1, so that it helps no other."""
    from statsmodels.stats.multitest import multipletests

    if not tests:
        return {}
    full = [1.0 if p is None else p for p in tests.values()]
    corrected = np.asarray(multipletests(full, alpha=ALPHA, method="holm")[1]).tolist()
    return {arm: None if tests[arm] is None else p for arm, p in zip(tests, corrected, strict=True)}


def interval(found: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the t interval of the mean of differences [pairs]."""
    from scipy import stats

    if np.ptp(found) == 0:  # the limit of a small spread, for which scipy would divide by zero
        return float(found[0]), float(found[0])
    limits = stats.ttest_1samp(found, 0).confidence_interval(confidence)
    return float(limits.low), float(limits.high)


def equivalence(found: np.ndarray, margin: float) -> float:
    """Return the p of two one-sided t tests that the mean of differences [pairs] lies within the margin."""
    from statsmodels.stats.weightstats import DescrStatsW

    if np.ptp(found) == 0:  # the limit again
        return 0.0 if abs(found[0]) < margin else 1.0
    return float(DescrStatsW(found).ttost_mean(-margin, margin)[0])


SIMULATED = 2_000
"""Number of simulated sweeps from which the power of the sign-flip test is computed; its standard error is 0.009 at 0.8."""


@functools.cache
def effect_size(pairs: int, family: int) -> float | None:
    """Return the difference that the sign-flip test detects with power POWER, in standard deviations of the differences.

    It must reach ALPHA / `family`, as Holm's correction demands of the smallest of that many p. Computed from normal
    differences; where the signs are not enumerated, from the t test, which then agrees. None if no difference can be detected.
    """
    if smallest_p(pairs, family) >= ALPHA:
        return None
    if not is_exact(pairs):
        from statsmodels.stats.power import TTestPower

        return float(TTestPower().solve_power(nobs=pairs, alpha=ALPHA / family, power=POWER, alternative="two-sided"))
    lower, upper = 0.0, 20.0
    while upper - lower > 1e-3:
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if power(middle, pairs, family) < POWER else (lower, middle)
    return upper


def power(effect: float, pairs: int, family: int) -> float:
    """Return the probability that the sign-flip test detects an effect, given in standard deviations of the differences."""
    noise = np.random.default_rng(0).standard_normal((SIMULATED, pairs))
    rest = np.array(list(itertools.product((1.0, -1.0), repeat=pairs - 1))).reshape(-1, pairs - 1)
    signs = np.concatenate([np.ones((len(rest), 1)), rest], axis=1)  # the other half of all flips has equal means
    means = np.abs((noise + effect) @ signs.T)
    p = np.mean(means >= means[:, :1] - 1e-9, axis=1)  # the first row of signs changes nothing
    return float(np.mean(p * family < ALPHA))


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return Pearson's r of two series [n]; None for fewer than three values or without spread."""
    from scipy import stats

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.asarray(stats.pearsonr(one, other))[0])


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of values [n]."""
    from scipy import stats

    options: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": BATCH, "method": "percentile", "vectorized": True}
    limits = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0), **options).confidence_interval
    return float(limits.low), float(limits.high)
