"""Net 145 of the original program on ImageNet, with the learning rates that its author set by hand; 91 epochs.

python launch.py --exp=alexnet_imagenet --mode=prepare     # once, then
python launch.py --exp=alexnet_imagenet_original

Its author measured a top-1 / top-5 error of 40.66 % / 18.21 % with ten views. It has not been trained to the end with
this program yet.

Differences from alexnet_imagenet: normalization and pooling before conv1's ReLU, a second normalization after conv2,
initial weights with a larger deviation in conv3 to conv5, biases without decay at a constant rate, colour noise until
epoch 67, conv1 frozen from epoch 72. In the original program, 32 consecutive images share one crop and one mirror;
here each image has its own.
"""

from alexnet_jax.experiment import Data, Experiment, Network, Optim, Train

EXPERIMENT = Experiment(
    name="alexnet_imagenet_original",
    network=Network("alexnet", order="original", init="original"),
    data=Data(
        "imagenet2012",
        validation=10_000,
        crop_padding=0,
        crop=224,
        views=10,
        colour="original",
        colour_epochs=67,
        fallback="error",
    ),
    optim=Optim(rule="original", learning_rate=0.01, schedule="original"),
    train=Train(epochs=91, batch=128, eval_batch=256),
)
