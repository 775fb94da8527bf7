"""The original author's quick CIFAR-10 network: 26 % test error without augmentation, after ten epochs.

python launch.py --exp=cuda_convnet_26pct

As in the layer file of the original program, the images are 0..255 minus the training mean, rates and decays of the
weights are set per layer, and biases have a separate rate and no decay. Eight epochs are followed by two at a tenth of
the weights' rate. All 50,000 training images are used, also as in the original, so that the validation error is that of
training images.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="cuda_convnet_26pct",
    network=Network("cuda_convnet_26pct", columns=1),
    data=Data("cifar10", crop_padding=0, mirror=False, fold_in=True),
    optim=Optim(rule="original", learning_rate=0.001, bias_learning_rate=0.002, drops=(8,)),
    train=Train(epochs=10, batch=128),
)
