"""A narrow two-column network on scikit-learn's digits: the whole program in a minute or two, with nothing to download."""

from alexnet_jax.experiment import DIGITS, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_digits",
    network=Network("alexnet_cifar", width=0.125, fc_units=128, init="he"),
    data=DIGITS,
    optim=Optim(learning_rate=0.02, schedule="linear", warmup=2.0),
    train=Train(epochs=20, batch=64, log_every=10),
)
