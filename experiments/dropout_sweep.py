"""Sweep: with and without dropout in fc6 and fc7 (section 4.2 of the paper).

python launch.py --exp=dropout_sweep

18 trainings as long as alexnet_cifar's; --dry_run estimates the hours.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep

SWEEP = Sweep(
    name="dropout_sweep",
    question="Does dropout in the two hidden fully connected layers lower the test error?",
    arms=(
        Arm(
            "no_dropout",
            {"network.dropout": 0.0},
            "all units of fc6 and fc7 always at work",
            "substantial overfitting without dropout, which roughly doubles the iterations to converge (section 4.2; no figure)",
        ),
    ),
)
