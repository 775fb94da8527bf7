"""Compare the statistics of a sweep with plain computations: enumeration, formulas with table values, simulation."""

import itertools
import math
import warnings
from statistics import NormalDist

import numpy as np
import pytest

from alexnet_jax.errors import RunError
from alexnet_jax.sweeps.analysis import inference
from alexnet_jax.sweeps.analysis.comparison import Cell, compare, paired
from alexnet_jax.sweeps.analysis.inference import is_exact
from alexnet_jax.sweeps.plan import reach, seeds_needed, smallest_p

BASE = (12.31, 12.05, 12.64, 12.22, 12.47)
ARM = (13.02, 12.89, 12.71, 13.40, 13.11)
"""Errors of five seeds in points. Every difference is positive."""

T_4 = 2.776445
"""The 97.5 % quantile of Student's t with four degrees of freedom, from a table."""


@pytest.fixture(autouse=True)
def no_warnings():
    """Turn warnings into errors. pytest's filter misses scipy's warnings about degenerate samples, which name scipy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def cells(arm, errors, first=0, wrong=None):
    """Return a finished trial for each error in points, and a failed one for None."""
    return [
        Cell(arm, first + i, "failed", "out of memory")
        if error is None
        else Cell(arm, first + i, "finished", top1_error=error / 100, wrong=None if wrong is None else wrong[i])
        for i, error in enumerate(errors)
    ]


def one(base, arm, margin=0.5, wrong=(None, None)):
    trials = {"base": cells("base", base, wrong=wrong[0]), "arm": cells("arm", arm, wrong=wrong[1])}
    (found,) = compare(trials, "base", ["base", "arm"], None, margin)
    return found


def flips(differences):
    """Return the two-sided p by enumeration of all signs, in integer hundredths of a point to avoid rounding."""
    whole = [round(100 * d) for d in differences]
    sums = [
        abs(sum(s * d for s, d in zip(signs, whole, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(whole))
    ]
    return sum(total >= abs(sum(whole)) for total in sums) / len(sums)


def test_mean_spread_and_t_interval_by_formula():
    found = one(BASE, ARM)
    differences = [a - b for a, b in zip(ARM, BASE, strict=True)]
    mean = sum(differences) / 5
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / 4)
    half = T_4 * sd / math.sqrt(5)
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.difference == pytest.approx(mean)
    assert found.interval == pytest.approx((mean - half, mean + half), rel=1e-6)
    assert found.mean == pytest.approx(sum(ARM) / 5)
    assert found.std == pytest.approx(math.sqrt(sum((a - sum(ARM) / 5) ** 2 for a in ARM) / 4))
    products = [(a - sum(ARM) / 5) * (b - sum(BASE) / 5) for a, b in zip(ARM, BASE, strict=True)]
    sd_base = math.sqrt(sum((b - sum(BASE) / 5) ** 2 for b in BASE) / 4)
    assert found.correlation == pytest.approx(sum(products) / 4 / found.std / sd_base)
    assert found.detectable is None  # five pairs cannot reach p < 0.05


@pytest.mark.parametrize(("pairs", "family"), [(6, 1), (7, 2), (7, 3), (8, 4)])
def test_the_detectable_difference_by_formula(pairs, family):
    """With these numbers the test finds a difference exactly if all pairs have the same sign."""
    smallest, next_one = 2 / 2**pairs, 4 / 2**pairs
    assert smallest * family < 0.05 <= next_one * family
    one_sign = NormalDist().inv_cdf(0.8 ** (1 / pairs))
    assert inference.effect_size(pairs, family) == pytest.approx(one_sign, rel=0.02)


def test_the_detectable_difference_approaches_that_of_a_t_test():
    enumerated, t_test = inference.effect_size(13, 1), 0.8467  # of 13 pairs, from the noncentral t distribution
    assert enumerated == pytest.approx(t_test, rel=0.05)
    assert inference.effect_size(14, 1) < enumerated < inference.effect_size(13, 3) < inference.effect_size(12, 3)
    assert inference.effect_size(5, 1) is None


@pytest.mark.parametrize(
    "differences",
    [
        (0.71, 0.84, 0.07, 1.18, 0.64),
        (0.1, -0.2, 0.3, 0.0, -0.1, 0.25, 0.4),
        (0.1, 0.1, -0.1, -0.1),
        (-0.3, -0.2, -0.1),
        (0.1, 0.2, 0.3, -0.6, 0.6, -0.1),
        (0.08, -0.23, 0.15, 0.09, 0.11, -0.20),  # The sum is zero, so that any rounding error would change p.
        (0.0, 0.0),
    ],
)
def test_sign_flip_by_enumeration_ties_included(differences):
    found = one([12.0] * len(differences), [12.0 + d for d in differences])
    assert found.p == flips(differences)
    assert found.p_holm == found.p


def test_many_seeds_flip_at_random_and_say_so():
    assert is_exact(13) and not is_exact(14)
    rng = np.random.default_rng(1)
    differences = np.round(rng.normal(0.1, 0.3, 14), 2)
    found = one([12.0] * 14, list(12.0 + differences))
    assert found.p == pytest.approx(flips(differences), abs=0.02)
    assert found == one([12.0] * 14, list(12.0 + differences))


def test_holm_by_hand_without_control_and_with_missing_arms():
    base = [12.0 + 0.01 * i for i in range(8)]
    # The i-th arm has i differences of opposite sign, which gives p = 2/256, 4/256 and more.
    shapes = {
        name: [b + (0.3 + 0.01 * i if i >= against else -0.01 * (i + 1)) for i, b in enumerate(base)]
        for name, against in (("a", 0), ("b", 1), ("c", 2))
    }
    trials = {
        "base": cells("base", base),
        "again": cells("again", shapes["a"], first=50),
        "lost": cells("lost", [None] * 8),
    }
    trials |= {name: cells(name, errors) for name, errors in shapes.items()}
    found = {one.arm: one for one in compare(trials, "base", ["c", "lost", "a", "b"], "again", 0.1)}
    assert list(found) == ["c", "lost", "a", "b", "again"]
    p = {name: flips([e - b for e, b in zip(shapes[name], base, strict=True)]) for name in "abc"}
    assert p["a"] < p["b"] < p["c"] and p["a"] == 2 / 256
    first = 4 * p["a"]
    second = max(first, 3 * p["b"])
    third = max(second, 2 * p["c"])
    assert [found[name].p_holm for name in "abc"] == pytest.approx([first, second, min(third, 1)])
    assert found["again"].p == p["a"] and found["again"].p_holm is None and found["again"].verdict == "worse"
    assert found["lost"].p is None and found["lost"].p_holm is None


def test_equivalence_by_formula_and_every_verdict():
    differences = np.array([0.05, -0.08, 0.02, 0.11, -0.04])
    found = one([12.0] * 5, list(12.0 + differences), margin=0.2)
    error = differences.std(ddof=1) / math.sqrt(5)
    t = (0.2 - abs(differences.mean())) / error
    # Student's t with four degrees of freedom in closed form.
    x = t / math.sqrt(t * t + 4)
    assert found.equivalence_p == pytest.approx(0.5 - (x + x * (1 - x * x) / 2) / 2, rel=1e-6)
    assert found.verdict == "equivalent"
    assert one([12.0] * 5, list(12.0 - differences), margin=0.2).equivalence_p == pytest.approx(found.equivalence_p)
    assert one([12.0] * 5, list(12.0 + differences), margin=0.05).verdict == "undecided"
    six = [0.5, 0.6, 0.7, 0.4, 0.3, 0.8]
    assert one([12.0] * 6, [12.0 + d for d in six]).verdict == "worse"
    assert one([12.0] * 6, [12.0 - d for d in six]).verdict == "better"
    # Five pairs cannot reach 0.05, and 0.5 points exceeds the margin.
    assert one([12.0] * 5, [12.0 + d for d in six[:5]], margin=0.1).verdict == "undecided"


def test_verdicts_of_arms_are_corrected_and_the_control_s_is_not():
    worse = [12.5, 12.6, 12.7, 12.4, 12.3, 12.8]
    trials = {"base": cells("base", [12.0] * 6), "a": cells("a", worse), "b": cells("b", [None] * 6)}
    trials["again"] = cells("again", worse, first=6)
    found = compare(trials, "base", ["a", "b"], "again", 0.1)
    assert [(one.arm, one.p, one.verdict) for one in found] == [
        *(("a", 2 / 64, "undecided"), ("b", None, "undecided"), ("again", 2 / 64, "worse")),
    ]


def pictures(rng, images, seeds, shift):
    hard = rng.uniform(size=images)
    base = [hard + rng.normal(0, 0.1, images) < 0.2 for _ in range(seeds)]
    arm = [hard + rng.normal(0, 0.1, images) < 0.2 + shift for _ in range(seeds)]
    return base, arm


def test_interval_over_images_near_normal_theory():
    base, arm = pictures(np.random.default_rng(2), 4000, 3, 0.03)
    errors = [[100 * wrong.mean() for wrong in side] for side in (base, arm)]
    found = one(*errors, wrong=(base, arm))
    each = 100 * (np.mean(arm, axis=0) - np.mean(base, axis=0))
    half = 1.96 * each.std() / math.sqrt(4000)
    assert found.difference == pytest.approx(each.mean())
    assert found.image_interval == pytest.approx((each.mean() - half, each.mean() + half), abs=0.15 * half)
    # With the answers of one seed missing, the interval and the difference would be about different seeds.
    assert one(*errors, wrong=(base, [*arm[:2], None])).image_interval is None


def test_interval_over_images_of_unequal_test_sets():
    base, arm = [np.zeros(50, bool)] * 2, [np.ones(50, bool)] * 2
    assert one((0.0, 0.0), (0.0, 0.0), wrong=(base, base)).image_interval == (0, 0)
    assert one((0.0, 0.0), (100.0, 100.0), wrong=(base, arm)).image_interval == (100, 100)
    with pytest.raises(RunError, match="tested on 50 and 60 images"):
        one((1.0, 2.0), (1.0, 2.0), wrong=(base, [np.ones(60, bool)] * 2))


def test_only_seeds_finished_on_both_sides_are_paired():
    found = one((12.0, None, 12.2, 12.3), (12.5, 12.6, None, 12.9))
    assert found.seeds == (0, 3)
    assert found.difference == pytest.approx((0.5 + 0.6) / 2)
    assert found.mean == pytest.approx((12.5 + 12.6 + 12.9) / 3)
    # A seed that the arm does not have does not shift the other pairs.
    base = cells("base", (12.0, 12.1, 12.2))
    assert [arm.seed for _, arm in paired(base, cells("arm", (12.5, 12.6), first=1))] == [1, 2]
    (found,) = compare({"base": base, "arm": cells("arm", (12.5, 12.6), first=1)}, "base", ["arm"], None, 0.5)
    assert found.seeds == (1, 2)


def test_control_is_paired_by_position_with_failed_trials():
    base = cells("base", (12.0, 12.1, 12.2))
    again = cells("again", (12.5, None, 12.9), first=100)
    assert [(b.seed, a.seed) for b, a in paired(base, again[::-1], by_position=True)] == [(0, 100), (2, 102)]
    (found,) = compare({"base": base, "again": again}, "base", [], "again", 0.5)
    assert found.seeds == (0, 2) and found.difference == pytest.approx(0.6)
    assert paired(base, again) == []


@pytest.mark.parametrize("errors", [(), (None, None), (13.0,)])
def test_too_few_pairs_give_no_interval_and_no_verdict(errors):
    found = one((12.0, 12.5), errors)
    assert (found.interval, found.p, found.p_holm, found.image_interval, found.equivalence_p) == (None,) * 5
    assert (found.detectable, found.correlation, found.std, found.verdict) == (None, None, None, "undecided")
    assert found.difference == (pytest.approx(1.0) if errors == (13.0,) else None)


def test_equal_differences_take_the_limit():
    # In binary, 8.1 - 7.9 and 16.1 - 15.9 are not quite 0.2.
    found = one((7.9, 12.2, 15.9), (8.1, 12.4, 16.1))
    assert found.interval == pytest.approx((0.2, 0.2)) and found.detectable is None
    assert one([12.0] * 6, [13.0] * 6).detectable == pytest.approx(0, abs=1e-9)
    assert (found.p, found.equivalence_p, found.verdict) == (0.25, 0, "equivalent")
    assert one((7.9, 12.2, 15.9), (8.1, 12.4, 16.1), margin=0.1).verdict == "undecided"
    same = one((12.0, 12.0, 12.0), (12.0, 12.0, 12.0))
    assert (same.difference, same.p, same.correlation, same.verdict) == (0, 1, None, "equivalent")
    assert one([12.0] * 6, [13.0] * 6).verdict == "worse"


def test_nothing_at_all():
    assert compare({}, "base", [], None, 0.5) == []
    assert [found.arm for found in compare({}, "base", ["x", "x"], "again", 0.5)] == ["x", "again"]


def test_the_test_errs_one_time_in_twenty():
    """Compare a base with itself: sign flips of six pairs reject 2 of 64 cases, hence 3.1 % on average."""
    rng = np.random.default_rng(5)
    count = 150
    base, again = np.round(12 + rng.normal(0, 0.2, (2, count, 6)), 2)
    rejected = 0
    for i in range(count):
        trials = {"base": cells("base", base[i]), "again": cells("again", again[i], first=100)}
        (found,) = compare(trials, "base", [], "again", 0.01)
        rejected += found.verdict in ("better", "worse")
    # The expectation is 4.7, the standard deviation 2.1.
    assert 1 <= rejected <= 13


def test_what_a_number_of_seeds_can_reach():
    assert smallest_p(5, 1) == 0.0625 and smallest_p(6, 1) == 0.03125 and smallest_p(2, 5) == 1
    assert [seeds_needed(family) for family in (1, 2, 4, 20)] == [6, 7, 8, 10]
    assert seeds_needed(1, 0.01) == 8
    # The test itself has the same smallest p when all differences have the same sign.
    assert one([12.0] * 5, [12.1, 12.2, 12.3, 12.4, 12.5]).p == smallest_p(5, 1)
    assert reach(5, 1) == (
        "With 5 seeds this test cannot reach p < 0.05 (its smallest p, after Holm's correction over 1 arm, is 0.0625); "
        "6 can."
    )
    assert (
        reach(8, 3) == "With 8 seeds the smallest p this test can give, after Holm's correction over 3 arms, is 0.0234."
    )
