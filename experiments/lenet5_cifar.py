"""LeNet-5 on CIFAR-10, the first baseline AlexNet is compared with.

python launch.py --exp=lenet5_cifar

Adapted to 32x32x3 images (baselines.py). Data, update rule, schedule and epochs are those of alexnet_cifar, so that the networks
are compared on equal terms; `--exp=seed_comparison` does that over several seeds.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Network
from experiments import alexnet_cifar

EXPERIMENT: Experiment = dataclasses.replace(
    alexnet_cifar.EXPERIMENT, name="lenet5_cifar", network=Network("lenet5", columns=1)
)
