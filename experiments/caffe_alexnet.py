"""Caffe's bvlc_alexnet on ImageNet, for weights trained by Caffe: 227x227 images, 60,965,224 parameters.

python launch.py --exp=caffe_alexnet --mode=import --weights=bvlc_alexnet.caffemodel
python launch.py --exp=caffe_alexnet --mode=eval --workdir=runs/caffe_alexnet-imported

docs/weights.md describes the import. The model's readme reports a top-1 / top-5 accuracy of 57.1 % / 80.2 % on the
validation images with the centre crop; it has not been measured here. Rate, drops and batch are those of the model's
solver, except that the solver gives the biases twice the rate and no decay; 90 epochs on a GPU.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="caffe_alexnet",
    network=Network("caffe_alexnet"),
    data=Data("imagenet2012", validation=10_000, crop_padding=0, crop=227),
    optim=Optim(rule="paper", learning_rate=0.01, schedule="drops", drops=(20, 40, 60, 80)),
    train=Train(epochs=90, batch=256),
)
