"""Sweep: local response normalization, without it and in its variants (section 3.3 of the paper).

python launch.py --exp=lrn_sweep

56 trainings as long as alexnet_cifar's; --dry_run estimates the hours. RESULTS.md has results of smaller sweeps.

For images scaled to a standard deviation of one, LRN's sum is small compared with k = 2, so that LRN is nearly a
constant factor. The arm pixel_scale applies LRN at the scale for which it was designed, that of images of 0..255.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep
from experiments._published import published

SWEEP = Sweep(
    name="lrn_sweep",
    question="What does local response normalization after conv1 and conv2 do to the test error?",
    arms=(
        Arm(
            "no_lrn",
            {"network.lrn": "none"},
            "no normalization layers",
            *published("no_lrn"),
        ),
        Arm(
            "pixel_scale",
            {"network.lrn": "pixel_scale"},
            "alpha times 64^2, so that LRN acts on images of deviation one as the paper's does on 0..255",
        ),
        Arm("divided", {"network.lrn": "divided"}, "alpha divided by the 5 maps, as the original program computes it"),
        Arm(
            "tutorial_order",
            {"network.order": "tutorial"},
            "pooling before LRN, and LRN after conv3 and conv4 too",
            *published("tutorial_order"),
        ),
        Arm(
            "no_conv2_lrn",
            {"network.lrn": "not_conv2"},
            "no normalization after conv2",
            *published("no_conv2_lrn"),
        ),
    ),
)
