"""Sweep: each of conv3, conv4, conv5 and fc7 left out (section 7 of the paper).

python launch.py --exp=depth_sweep

48 trainings as long as alexnet_cifar's; --dry_run estimates the hours.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep
from experiments._published import published

SWEEP = Sweep(
    name="depth_sweep",
    question="Does every one of the middle layers matter?",
    arms=tuple(
        Arm(
            f"no_{layer}",
            {"network.without": layer},
            f"{layer} left out; its crossing moves to the next layer",
            *published("without_a_layer"),
        )
        for layer in ("conv3", "conv4", "conv5", "fc7")
    ),
)
