"""The two-column network at half width on CIFAR-10: about 84 % test accuracy in half an hour or less on two cores.

python launch.py --exp=alexnet_cifar

The layers, LRN, overlapping pooling, dropout and update rule are the paper's, and so is the augmentation: random 28x28
cuts of the 32x32 images, in the proportion of 224 to 256, their mirror images, and ten views of each test image. The
differences from the paper and their reasons: He's initial weights and images scaled to a standard deviation of one,
because N(0, 0.01) multiplies the scale of the activations by 0.01 * sqrt(inputs / 2) in each layer, which is 0.06 to 0.3
at this width; a warm-up and a linear decay of the learning rate, because fifteen epochs are too few for drops by hand;
batches of 64, because twice as many steps over the same number of images give a lower error. At this scale of the
activations, LRN's sum is small compared with k = 2, so that LRN acts mostly as a constant factor.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_cifar",
    network=Network("alexnet_cifar", width=0.5, fc_units=1024, init="he"),
    data=Data("cifar10", scale="std", crop_padding=0, crop=28, views=10),
    optim=Optim(learning_rate=0.05, schedule="linear", warmup=0.5),
    train=Train(epochs=15, batch=64),
)
