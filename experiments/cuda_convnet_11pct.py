"""The original author's 11 % CIFAR-10 network, first part: LRN, local layers, 24x24 crops and mirrors; 350 epochs.

python launch.py --exp=cuda_convnet_11pct

The test averages nine views. This part holds out 10,000 training images, as many as the author's batch 5 contains;
cuda_convnet_11pct_fold continues with all 50,000. It needs a GPU and has not been trained to the end yet.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="cuda_convnet_11pct",
    network=Network("cuda_convnet_11pct", columns=1),
    data=Data("cifar10", validation=10_000, crop_padding=0, crop=24, views=9),
    optim=Optim(rule="original", learning_rate=0.001, bias_learning_rate=0.002, schedule="constant"),
    train=Train(epochs=350, batch=128),
)
