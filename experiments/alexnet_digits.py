"""A narrow two-column network on scikit-learn's digits: over 97 % test accuracy in two minutes, nothing to download.

python launch.py --exp=alexnet_digits

The network has an eighth of the paper's maps, and 128 units in fc6 and fc7. The table, the split and the update rule
are those of alexnet_cifar. The images are not mirrored, because a mirrored digit is a different digit or none.
"""

from alexnet_jax.experiment import DIGITS, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_digits",
    network=Network("alexnet_cifar", width=0.125, fc_units=128, init="he"),
    data=DIGITS,
    optim=Optim(learning_rate=0.02, schedule="linear", warmup=2.0),
    train=Train(epochs=20, batch=64, log_every=10),
)
