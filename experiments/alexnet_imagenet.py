"""The paper's network on ImageNet: 224x224 images, 1000 classes, 60,965,224 parameters. So far --mode=summary only.

python launch.py --exp=alexnet_imagenet --mode=summary

Initial weights, update rule and 90 epochs are the paper's (section 5). The input pipeline for ImageNet is not part of this
version, and neither is the rule that lowers the rate when the validation error stops improving; the drops below stand at
the epochs where the original program's author lowered the weights' rate of net 145 by hand.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_imagenet",
    network=Network("alexnet", init="paper"),
    data=Data("imagenet2012", validation=10_000, crop_padding=0),
    optim=Optim(rule="paper", learning_rate=0.01, schedule="drops", drops=(25, 51, 79)),
    train=Train(epochs=90, batch=128),
)
