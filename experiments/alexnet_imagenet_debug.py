"""All stages of alexnet_imagenet on a few images, with an eighth of its maps: minutes on two CPU cores.

python launch.py --exp=alexnet_imagenet_debug

It reads a few images of ImageNet in the layout of tensorflow-datasets, or a folder of classes (--data.name=folder
--data.dir=FOLDER). A network cannot learn a thousand classes from a few images, so the error stays near 100 %; the run
checks that reading, crops, colour noise, the plateau rule, ten views and reports work.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_imagenet_debug",
    network=Network("alexnet", width=0.125, fc_units=256, init="he"),
    data=Data(
        "imagenet2012",
        validation=8,
        crop_padding=0,
        crop=224,
        views=10,
        colour="original",
        scale="std",
        fallback="error",
    ),
    optim=Optim(rule="paper", learning_rate=0.01, schedule="plateau", patience=2),
    train=Train(epochs=10, batch=16, eval_batch=20, log_every=1),
)
