"""Sweep: initial weights and biases (section 5 of the paper).

python launch.py --exp=init_sweep

48 trainings as long as alexnet_cifar's; --dry_run estimates the hours.

N(0, 0.01) suits the paper's width. In narrow networks the activations shrink from layer to layer, and some networks may
never start to learn.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep

SWEEP = Sweep(
    name="init_sweep",
    question="What do the paper's initial weights and its biases of one do, compared with He's weights and biases of zero?",
    arms=(
        Arm(
            "paper", {"network.init": "paper"}, "weights N(0, 0.01), biases of conv2, conv4, conv5, fc6 and fc7 at one"
        ),
        Arm("original", {"network.init": "original"}, "the same with N(0, 0.03) in conv3 to conv5, as in net 145"),
        Arm(
            "paper_zero_biases",
            {"network.init": "paper", "network.biases": "zeros"},
            "the paper's weights, biases at zero",
        ),
        Arm("he_ones", {"network.init": "he", "network.biases": "ones"}, "He's weights with the paper's biases"),
    ),
)
