"""Sweep: AlexNet compared with LeNet-5 and a simple CNN on CIFAR-10, as in the tutorial.

python launch.py --exp=seed_comparison

14 trainings as long as alexnet_cifar's and 14 short ones; --dry_run estimates the hours. Data, update rule,
schedule, epochs and order of examples are equal; the sizes of the networks differ.
"""

from alexnet_jax.experiment import Network
from alexnet_jax.sweeps.plan import Arm, Sweep

SWEEP = Sweep(
    name="seed_comparison",
    question="How far ahead of LeNet-5 and of a simple CNN is the two-column network?",
    arms=(
        Arm(
            "lenet5",
            {"network": Network("lenet5", columns=1)},
            "LeNet-5 adapted to 28x28x3 cuts of the images",
            "the tutorial had about 60 % accuracy with it after 200 iterations",
        ),
        Arm(
            "simple_cnn", {"network": Network("simple_cnn", columns=1)}, "two convolutions, two fully connected layers"
        ),
    ),
)
