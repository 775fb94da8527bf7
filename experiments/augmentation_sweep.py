"""Sweep: no augmentation, each augmentation alone, and additional colour noise (section 4.1 of the paper).

python launch.py --exp=augmentation_sweep

48 trainings as long as alexnet_cifar's; --dry_run estimates the hours.

The base uses random crops and mirrors.
"""

from alexnet_jax.sweeps.plan import Arm, Sweep
from experiments._published import published

WHOLE = {"data.crop": 0, "data.views": 1}
"""Whole images of 32x32 pixels, in training and in the test."""
NO_MIRRORS = {"data.mirror": False}

SWEEP = Sweep(
    name="augmentation_sweep",
    question="What do random crops, mirrors and colour noise each contribute?",
    arms=(
        Arm(
            "no_augmentation",
            WHOLE | NO_MIRRORS,
            "the images as they are; one view of each test image",
            "substantial overfitting without crops and mirrors (section 4.1; no figure)",
        ),
        Arm("mirrors_only", WHOLE, "mirrors, no crops; one view of each test image"),
        Arm("crops_only", NO_MIRRORS, "crops, no mirrors"),
        Arm(
            "colour",
            {"data.colour": "original"},
            "crops, mirrors and noise along the principal components of the colours",
            *published("colour"),
        ),
    ),
)
