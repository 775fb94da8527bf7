"""LeNet-5 on CIFAR-10, the first baseline that AlexNet is compared with.

python launch.py --exp=lenet5_cifar

The network is adapted to 28x28x3 cuts of the images (baselines.py). Data, update rule, schedule and epochs are those of
alexnet_cifar, for a fair comparison; `--exp=seed_comparison` repeats it with several seeds.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Network
from experiments import alexnet_cifar

EXPERIMENT: Experiment = dataclasses.replace(
    alexnet_cifar.EXPERIMENT, name="lenet5_cifar", network=Network("lenet5", columns=1)
)
