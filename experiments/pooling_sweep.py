"""Sweep: overlapping compared with non-overlapping pooling (section 3.4 of the paper).

python launch.py --exp=pooling_sweep

18 trainings as long as alexnet_cifar's; --dry_run estimates the hours. RESULTS.md has results of smaller sweeps.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep
from experiments._published import published

SWEEP = Sweep(
    name="pooling_sweep",
    question="Do 3x3 pooling windows every two pixels beat 2x2 windows every two pixels?",
    arms=(
        Arm(
            "non_overlapping",
            {"network.pooling": "non_overlapping"},
            "2x2 windows instead of 3x3; conv5 is not padded, as in net 147, so that fc6 keeps its inputs",
            *published("non_overlapping"),
        ),
    ),
)
