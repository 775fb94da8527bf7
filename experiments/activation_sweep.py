"""Sweep: ReLU against tanh, and the epochs each takes to 25 % training error (section 3.1, figure 1 of the paper).

python launch.py --exp=activation_sweep

30 trainings as long as alexnet_cifar's, 28 minutes on two cores: about 14 hours. RESULTS.md has what smaller ones gave.

As in figure 1 there is no regularization but weight decay: no dropout, no crops, no mirrors. The paper chose a rate for each
activation by itself; here both have the same, and tanh_faster and tanh_slower show what another would do.
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
    common={"network.dropout": 0.0, "data.crop_padding": 0, "data.mirror": False},
    arms=(
        TANH,
        Arm("tanh_faster", TANH.changes | {"optim.learning_rate": 0.06}, "tanh with twice the rate"),
        Arm("tanh_slower", TANH.changes | {"optim.learning_rate": 0.015}, "tanh with half the rate"),
    ),
    milestone=0.25,
)
