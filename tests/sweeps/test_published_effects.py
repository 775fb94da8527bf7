"""Check the published effects that reports quote, recomputed from their sources, and the arms that they belong to."""

import pytest

import experiments
from alexnet_jax.sweeps.plan import Sweep
from experiments._published import DIFFERENCES, NETS

EFFECTS = {
    "non_overlapping": 0.4,
    "no_lrn": 1.4,
    "one_half_column": 1.7,
    "none_before_fc8": 1.17,
    "tutorial_order": 0.11,
    "no_conv2_lrn": -0.11,
    "colour": -1.0,
    "no_conv3": 2.0,
    "no_conv4": 2.0,
    "no_conv5": 2.0,
    "no_fc7": 2.0,
}
"""Points of top-1 error, copied again from sections 3.2 to 3.4, 4.1 and 7 of the paper and the 2012 layer files."""


def test_every_arm_quotes_its_published_effect():
    sweeps = [found for name in experiments.FILES if isinstance(found := experiments.find(name), Sweep)]
    found = {arm.name: arm.effect for sweep in sweeps for arm in sweep.arms if arm.effect is not None}
    assert found == EFFECTS


@pytest.mark.parametrize("arm", [arm for arm, found in DIFFERENCES.items() if found.paper])
def test_the_papers_difference_is_that_of_its_networks(arm):
    found = DIFFERENCES[arm]
    assert found.measured == pytest.approx(found.paper[:2], abs=0.0501)  # the paper rounds to one decimal


@pytest.mark.parametrize("arm", DIFFERENCES)
def test_networks_are_compared_on_the_same_data(arm):
    found = DIFFERENCES[arm]
    assert NETS[found.net].data == NETS[found.base].data
    assert found.text.endswith(NETS[found.net].data)
