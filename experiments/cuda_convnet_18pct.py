"""The original author's 18 % CIFAR-10 network: normalization within each map, no augmentation, 140 epochs.

python launch.py --exp=cuda_convnet_18pct

120 epochs, 10 at a tenth of the weights' rate, 10 at a hundredth, on all 50,000 training images. About an hour and a half on
two cores at the speed of cuda_convnet_26pct; it has not been trained to the end here.
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
