"""The original author's 18 % CIFAR-10 network: normalization within each map, no augmentation, 140 epochs.

python launch.py --exp=cuda_convnet_18pct

It trains on all 50,000 images: 120 epochs at the full rate of the weights, 10 at a tenth, 10 at a hundredth. That takes
about an hour and a half on two cores at the speed of cuda_convnet_26pct; it has not been trained to the end yet.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Network, Optim, Train
from experiments import cuda_convnet_26pct

EXPERIMENT: Experiment = dataclasses.replace(
    cuda_convnet_26pct.EXPERIMENT,
    name="cuda_convnet_18pct",
    network=Network("cuda_convnet_18pct", columns=1),
    optim=Optim(rule="original", learning_rate=0.001, bias_learning_rate=0.002, drops=(120, 130)),
    train=Train(epochs=140, batch=128),
)
