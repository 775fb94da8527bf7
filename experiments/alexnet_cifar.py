"""The two-column network at half width on CIFAR-10."""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_cifar",
    network=Network("alexnet_cifar", width=0.5, fc_units=1024, init="he"),
    data=Data("cifar10", scale="std"),
    optim=Optim(learning_rate=0.02, schedule="linear", warmup=2.0),
    train=Train(epochs=20, batch=128),
)
