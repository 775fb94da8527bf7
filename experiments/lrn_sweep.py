"""Sweep: local response normalization, without it and in its variants (section 3.3 of the paper).

python launch.py --exp=lrn_sweep

56 trainings as long as alexnet_cifar's, 28 minutes on two cores: about 26 hours. RESULTS.md has what smaller ones gave.

Images scaled to a deviation of one leave LRN's sum small beside k = 2: there it is nearly a constant factor. The arm pixel_scale
is the same layer at the scale of activations it was made for, that of images of 0..255.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep

SWEEP = Sweep(
    name="lrn_sweep",
    question="What does local response normalization after conv1 and conv2 do to the test error?",
    arms=(
        Arm(
            "no_lrn",
            {"network.lrn": "none"},
            "no normalization layers",
            "1.4 / 1.2 points worse (section 3.3); net 148 42.03 / 19.36 % against net 145's 40.66 / 18.21 %, LSVRC-2012",
            1.4,
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
            "nearest: net 120, LRN after pooling, 41.04 / 18.71 % against net 131, LRN before it, 40.93 / 18.57 %, LSVRC-2012",
            0.11,
        ),
        Arm(
            "no_conv2_lrn",
            {"network.lrn": "not_conv2"},
            "no normalization after conv2",
            "net 167 40.49 / 18.12 % against the nearest base, net 169, 40.60 / 18.11 %, LSVRC-2012",
            -0.11,
        ),
    ),
)
