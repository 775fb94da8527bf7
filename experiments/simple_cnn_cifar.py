"""A simple CNN on CIFAR-10, two convolutions and two fully connected layers: the second baseline.

python launch.py --exp=simple_cnn_cifar

Data, update rule, schedule and epochs are those of alexnet_cifar, for a fair comparison; `--exp=seed_comparison`
repeats it with several seeds.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Network
from experiments import alexnet_cifar

EXPERIMENT: Experiment = dataclasses.replace(
    alexnet_cifar.EXPERIMENT, name="simple_cnn_cifar", network=Network("simple_cnn", columns=1)
)
