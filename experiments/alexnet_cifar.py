"""The two-column network at half width on CIFAR-10: over 80 % test accuracy in about an hour on two cores.

python launch.py --exp=alexnet_cifar

The paper's layers, LRN, overlapping pooling, dropout and update rule. What differs from the paper, and why: He's initial
weights and an image scale of one standard deviation, because N(0, 0.01) leaves a network on 32x32 images at ln(10) for
many epochs; a warm-up and a linear decay, because sixteen epochs are too few for drops by hand; crops of images padded by
four pixels, because 32x32 images leave nothing to crop.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_cifar",
    network=Network("alexnet_cifar", width=0.5, fc_units=1024, init="he"),
    data=Data("cifar10", scale="std"),
    optim=Optim(learning_rate=0.04, schedule="linear", warmup=1.0),
    train=Train(epochs=16, batch=128),
)
