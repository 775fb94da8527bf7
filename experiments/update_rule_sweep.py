"""Sweep: the paper's update rule compared with the order of optax.sgd and the original program's biases (section 5).

python launch.py --exp=update_rule_sweep

28 trainings as long as alexnet_cifar's; --dry_run estimates the hours.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep

SWEEP = Sweep(
    name="update_rule_sweep",
    question="Does it matter whether the learning rate stands inside or outside the momentum?",
    arms=(
        Arm(
            "sgd_order",
            {"optim.rule": "sgd"},
            "the rate outside the velocity, as in optax.sgd; differs while the rate changes",
        ),
        Arm(
            "original_biases",
            {"optim.rule": "original"},
            "biases without decay at a constant rate of 0.02, as in the original program",
        ),
    ),
)
