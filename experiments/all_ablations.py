"""Sweep: every arm of the other sweeps compared with one base, in one table.

python launch.py --exp=all_ablations

Trials that another sweep has already run on the same base are not run again. Of activation_sweep only tanh is included,
on the base with dropout and augmentation. About 340 trainings as long as alexnet_cifar's: days on two cores; --dry_run estimates
the hours.
"""

from alexnet_jax.sweeps.plan import Sweep
from experiments import (
    activation_sweep,
    augmentation_sweep,
    columns_sweep,
    crossings_sweep,
    depth_sweep,
    dropout_sweep,
    init_sweep,
    lrn_sweep,
    pooling_sweep,
    seed_comparison,
    update_rule_sweep,
)

PARTS = (
    pooling_sweep,
    lrn_sweep,
    dropout_sweep,
    augmentation_sweep,
    depth_sweep,
    columns_sweep,
    crossings_sweep,
    update_rule_sweep,
    init_sweep,
    seed_comparison,
)

SWEEP = Sweep(
    name="all_ablations",
    question="What is each choice of the paper worth, all else equal?",
    arms=(*(arm for part in PARTS for arm in part.SWEEP.arms), activation_sweep.TANH),
)
