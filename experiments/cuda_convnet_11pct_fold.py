"""The original author's 11 % CIFAR-10 network, second part: 170 more epochs with the held-out images folded in.

python launch.py --exp=cuda_convnet_11pct_fold --restore=runs/cuda_convnet_11pct

The rate is that of the first part for 150 epochs, a tenth for 10, and a hundredth for 10. Velocities start from zero.
The held-out images are now training images, so that the validation error no longer estimates the test error. It needs a
GPU and has not been trained to the end yet.
"""

import dataclasses

from alexnet_jax.experiment import Experiment, Optim, Train
from experiments import cuda_convnet_11pct

EXPERIMENT: Experiment = dataclasses.replace(
    cuda_convnet_11pct.EXPERIMENT,
    name="cuda_convnet_11pct_fold",
    data=dataclasses.replace(cuda_convnet_11pct.EXPERIMENT.data, fold_in=True),
    optim=Optim(rule="original", learning_rate=0.001, bias_learning_rate=0.002, drops=(150, 160)),
    train=Train(epochs=170, batch=128),
)
