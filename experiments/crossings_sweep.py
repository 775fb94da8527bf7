"""Sweep: the layers at which the two columns communicate (nets 127, 132 and 150 of the original program).

python launch.py --exp=crossings_sweep

35 trainings as long as alexnet_cifar's; --dry_run estimates the hours. RESULTS.md has the results of a smaller sweep.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep
from experiments._published import published

SWEEP = Sweep(
    name="crossings_sweep",
    question="Does it matter that the columns communicate at conv3 and the fully connected layers?",
    arms=(
        Arm(
            "none_before_fc8",
            {"network.crossings": "none_before_fc8"},
            "the columns meet in fc8 only; conv2 a quarter wider and fc6 twice as wide, as in net 150",
            *published("none_before_fc8"),
        ),
        Arm(
            "none_at_conv3",
            {"network.crossings": "none_at_conv3"},
            "conv3 sees its own column, and is 1.4 times as wide to keep the number of weights",
            '"significantly worse" (net 127 against 120, stopped at epoch 36)',
        ),
        Arm(
            "conv4_for_conv3",
            {"network.crossings": "conv4_for_conv3"},
            "the columns communicate at conv4 instead of conv3",
            '"worse than 131" (nets 132 and 133, whose bases are 120 and 131; stopped early)',
        ),
    ),
)
