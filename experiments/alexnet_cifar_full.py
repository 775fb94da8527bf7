"""The two-column network at the paper's full width on CIFAR-10: for a GPU, or a patient CPU.

python launch.py --exp=alexnet_cifar_full

35.9 million parameters, nine times the work of alexnet_cifar per image. Options as there, but for the paper's batches of 128
and more epochs, since a wide network on an accelerator can afford them. It has not been trained to the end yet.
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
