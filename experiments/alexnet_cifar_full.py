"""The two-column network at the paper's full width on CIFAR-10: for a GPU, or a patient CPU.

python launch.py --exp=alexnet_cifar_full

The network has 28.6 million parameters and needs 4.3 times the operations of alexnet_cifar per image. The options are
those of alexnet_cifar, except the paper's batch of 128, a higher learning rate and more epochs. It has not been trained
to the end yet.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Network, Train
from experiments import alexnet_cifar

EXPERIMENT: Experiment = dataclasses.replace(
    alexnet_cifar.EXPERIMENT,
    name="alexnet_cifar_full",
    network=Network("alexnet_cifar", width=1.0, fc_units=4096, init="he"),
    optim=dataclasses.replace(alexnet_cifar.EXPERIMENT.optim, learning_rate=0.04),
    train=Train(epochs=60, batch=128),
)
