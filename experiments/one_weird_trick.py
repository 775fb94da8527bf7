"""The merged network of "One weird trick" on ImageNet, in hybrid parallelism over all devices: 90 epochs.

python launch.py --exp=alexnet_imagenet --mode=prepare     # once: 256x256 JPEGs, then
python launch.py --exp=one_weird_trick --mesh.data=8 --train.batch=1024 --optim.learning_rate=0.08

The network is one column of 64, 192, 384, 384 and 256 maps (arXiv:1404.5997). Convolutions are data-parallel; fully
connected layers are split by units (hybrid.py). `--mesh.placement=columns` trains the same network by data parallelism
alone; the results agree up to rounding. Data and update rule are those of alexnet_imagenet, with 128 images per step on
any number of devices. The command above scales to eight devices as in the paper, multiplying the rate and the batch by
eight. It has not been trained to the end with this program yet.
"""

from alexnet_jax.experiment import Data, Experiment, MeshOptions, Network, Optim, Train

EXPERIMENT = Experiment(
    name="one_weird_trick",
    network=Network("alexnet", columns=1, kernels="merged"),
    data=Data(
        "imagenet2012", validation=10_000, crop_padding=0, crop=224, views=10, colour="original", fallback="error"
    ),
    optim=Optim(rule="paper", learning_rate=0.01, schedule="plateau"),
    train=Train(epochs=90, batch=128, eval_batch=256),
    mesh=MeshOptions(placement="hybrid"),
)
