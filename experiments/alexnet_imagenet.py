"""The paper's network on ImageNet, trained as in the paper: 60,965,224 parameters in two columns, 90 epochs.

python launch.py --exp=alexnet_imagenet --mode=prepare     # once: 256x256 JPEGs, then
python launch.py --exp=alexnet_imagenet

Published result with ten views: top-1 / top-5 error 40.7 % / 18.2 % on the 50,000 validation images, which are the test
set here. It has not been trained to the end with this program yet. Cost: 5.3e15 operations per epoch, 4.7e17 in total.

The training uses crops of 224 pixels, mirrors, the colour noise of the original program, the per-pixel mean on the
scale 0..255 and initial weights N(0, 0.01). The rate is divided by ten when the error on 10,000 held-out images has not
fallen for five epochs.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_imagenet",
    network=Network("alexnet", init="paper"),
    data=Data(
        "imagenet2012", validation=10_000, crop_padding=0, crop=224, views=10, colour="original", fallback="error"
    ),
    optim=Optim(rule="paper", learning_rate=0.01, schedule="plateau"),
    train=Train(epochs=90, batch=128, eval_batch=256),
)
