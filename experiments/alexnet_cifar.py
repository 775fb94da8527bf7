"""The two-column network at half width on CIFAR-10: over 80 % test accuracy in half an hour on two cores.

python launch.py --exp=alexnet_cifar

The layers, LRN, overlapping pooling, dropout and update rule are the paper's. The differences from the paper and their
reasons: He's initial weights and images scaled to a standard deviation of one, because N(0, 0.01) multiplies the scale
of the activations by 0.01 * sqrt(inputs / 2) in each layer, which is 0.06 to 0.3 at this width; a warm-up and a linear
decay of the learning rate, because eleven epochs are too few for drops by hand; batches of 64, because twice as many
steps over the same number of images give a lower error; crops of images padded by four pixels, because 32x32 images
are too small for crops without padding. At this scale of the activations, LRN's sum is small compared with k = 2, so
that LRN acts mostly as a constant factor.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_cifar",
    network=Network("alexnet_cifar", width=0.5, fc_units=1024, init="he"),
    data=Data("cifar10", scale="std"),
    optim=Optim(learning_rate=0.03, schedule="linear", warmup=0.5),
    train=Train(epochs=11, batch=64),
)
