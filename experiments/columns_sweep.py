"""Sweep: two columns compared with the paper's one-GPU net and one wide column (section 3.2 of the paper).

python launch.py --exp=columns_sweep

28 trainings as long as alexnet_cifar's; --dry_run estimates the hours.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep
from experiments._published import published

SWEEP = Sweep(
    name="columns_sweep",
    question="What do two columns gain over one, and what would one column of all the kernels gain over two?",
    arms=(
        Arm(
            "one_half_column",
            {"network.columns": 1, "network.kernels": "half"},
            "half as many kernels in conv1 to conv4, all of conv5, fc6 and fc7, as in net 145-half",
            *published("one_half_column"),
        ),
        Arm(
            "one_wide_column",
            {"network.columns": 1},
            "all kernels in one column, each seeing all maps: more parameters",
        ),
    ),
)
