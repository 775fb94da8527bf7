"""Sweep: ReLU against tanh, and the epochs each takes to 25 % training error (section 3.1, figure 1 of the paper).

python launch.py --exp=activation_sweep

35 trainings as long as alexnet_cifar's; --dry_run estimates the hours.

As in figure 1, weight decay is the only regularization: no dropout, no crops, no mirrors. The paper chose a learning
rate for each activation separately. Here both use 0.03, and two more arms train tanh with other rates.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep

TANH = Arm(
    "tanh",
    {"network.activation": "tanh"},
    "tanh after every layer but the last",
    "six times as many epochs to 25 % training error (section 3.1; a 4-layer network on CIFAR-10)",
)

SWEEP = Sweep(
    name="activation_sweep",
    question="How many epochs does ReLU save on the way to 25 % training error, and what is the test error then?",
    common={
        "network.dropout": 0.0,
        "data.crop": 0,
        "data.views": 1,
        "data.mirror": False,
        "optim.learning_rate": 0.03,
    },
    arms=(
        TANH,
        Arm("tanh_rate_06", TANH.changes | {"optim.learning_rate": 0.06}, "tanh at a peak rate of 0.06"),
        Arm("tanh_rate_015", TANH.changes | {"optim.learning_rate": 0.015}, "tanh at a peak rate of 0.015"),
    ),
    milestone=0.25,
)
