"""The original author's 13 % CIFAR-10 network: local layers, 24x24 crops and mirrors, no normalization; 350 epochs.

python launch.py --exp=cuda_convnet_13pct

This is cuda_convnet_11pct without LRN, with fewer local maps and one view of each test image. It needs a GPU and has
not been trained to the end yet.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Network
from experiments import cuda_convnet_11pct

EXPERIMENT: Experiment = dataclasses.replace(
    cuda_convnet_11pct.EXPERIMENT,
    name="cuda_convnet_13pct",
    network=Network("cuda_convnet_13pct", columns=1),
    data=dataclasses.replace(cuda_convnet_11pct.EXPERIMENT.data, views=1),
)
