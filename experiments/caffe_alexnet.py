"""Caffe's bvlc_alexnet on ImageNet, for weights that were trained there: 227x227 images, 60,965,224 parameters.

python launch.py --exp=caffe_alexnet --mode=import --weights=bvlc_alexnet.caffemodel
python launch.py --exp=caffe_alexnet --mode=eval --workdir=runs/caffe_alexnet-imported

docs/weights.md says what comes in and how. The model's readme gives its authors' numbers for the centre crop, 57.1 % and
80.2 % of the validation images right at top 1 and top 5; they have not been measured here. Rates, drops and batch are those
of its solver, whose biases also had twice the rate and no decay; 90 epochs on a GPU.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="caffe_alexnet",
    network=Network("caffe_alexnet"),
    data=Data("imagenet2012", validation=10_000, crop_padding=0, crop=227),
    optim=Optim(rule="paper", learning_rate=0.01, schedule="drops", drops=(20, 40, 60, 80)),
    train=Train(epochs=90, batch=256),
)
