"""torchvision's alexnet on ImageNet, for weights trained by torchvision: one column, no LRN, 61,100,840 parameters.

python launch.py --exp=torchvision_alexnet --mode=import --weights=alexnet-owt-7be5be79.pth
python launch.py --exp=torchvision_alexnet --mode=eval --workdir=runs/torchvision_alexnet-imported

docs/weights.md describes the import. torchvision's documentation reports a top-1 / top-5 accuracy of 56.522 % / 79.066
% on the validation images; it has not been measured here. Rule, rate, decay and drops are those of torchvision's
reference training, except that this program has no crops of random sizes; 90 epochs on a GPU.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="torchvision_alexnet",
    network=Network("torchvision_alexnet", columns=1),
    data=Data("imagenet2012", validation=10_000, crop_padding=0, crop=224, mean="channel", scale="std"),
    optim=Optim(rule="sgd", learning_rate=0.01, weight_decay=1e-4, schedule="drops", drops=(30, 60)),
    train=Train(epochs=90, batch=256),
)
