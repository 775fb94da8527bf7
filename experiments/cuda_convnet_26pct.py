"""The original author's quick CIFAR-10 network: 26 % test error without augmentation, after ten epochs.

python launch.py --exp=cuda_convnet_26pct

Images of 0..255 minus the training mean, weights' rates and decays per layer, biases with a rate of their own and no decay, as
in its layer file. About eight epochs, then two more at a tenth of the weights' rate. All 50,000 training images are used, as
there, an exception to the validation split of all other experiments: its validation error is that of images it was trained on.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="cuda_convnet_26pct",
    network=Network("cuda_convnet_26pct", columns=1),
    data=Data("cifar10", crop_padding=0, mirror=False, fold_in=True),
    optim=Optim(rule="original", learning_rate=0.001, bias_learning_rate=0.002, drops=(8,)),
    train=Train(epochs=10, batch=128),
)
