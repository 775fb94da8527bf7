"""torchvision's alexnet on ImageNet, for weights that were trained there: one column, no LRN, 61,100,840 parameters.

python launch.py --exp=torchvision_alexnet --mode=import --weights=alexnet-owt-7be5be79.pth
python launch.py --exp=torchvision_alexnet --mode=eval --workdir=runs/torchvision_alexnet-imported

docs/weights.md says what comes in and how. torchvision's documentation gives 56.522 % and 79.066 % of the validation images
right at top 1 and top 5; they have not been measured here. Rule, rate, decay and drops are those of its reference training,
which cuts its crops in random sizes, as this program does not; 90 epochs on a GPU.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="torchvision_alexnet",
    network=Network("torchvision_alexnet", columns=1),
    data=Data("imagenet2012", validation=10_000, crop_padding=0, crop=224, mean="channel", scale="std"),
    optim=Optim(rule="sgd", learning_rate=0.01, weight_decay=1e-4, schedule="drops", drops=(30, 60)),
    train=Train(epochs=90, batch=256),
)
