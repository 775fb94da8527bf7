"""Checks that the options of an experiment fit together. An error names the option, its value and what was expected.

Like experiment.py, this file does not import jax, so that a wrong option is answered at once.
"""

import dataclasses
import math
from typing import Any

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data, Experiment, MeshOptions, Network, Optim, Train


def check(experiment: Experiment) -> None:
    """Raise UsageError for the first option whose value cannot work."""
    _check_network(experiment.network)
    _check_data(experiment.data)
    _check_optim(experiment.optim, experiment.train)
    _check_train(experiment.train)
    _check_mesh(experiment.mesh, experiment.network, experiment.train)


def check_width(network: Network) -> None:
    """Raise UsageError unless the width is a positive number. `networks.build` calls this too, for users of the library."""
    positive = math.isfinite(network.width) and network.width > 0
    require("network.width", network.width, positive, "a positive number")


def _check_network(n: Network) -> None:
    check_width(n)
    if not n.name.startswith("alexnet"):
        _check_fixed(n)
        return
    divides = n.fc_units >= 2 and n.fc_units % n.columns == 0
    require("network.fc_units", n.fc_units, divides, "a positive multiple of network.columns")
    require("network.dropout", n.dropout, 0 <= n.dropout < 1, "at least 0 and below 1")
    crossed = n.crossings == "paper" or n.columns == 2
    require("network.crossings", n.crossings, crossed, f"paper with network.columns={n.columns}")
    merged = n.kernels != "merged" or n.columns == 1
    require("network.kernels", n.kernels, merged, "paper or half, or network.columns=1 with merged")


def _check_fixed(n: Network) -> None:
    """Refuse every option of a network whose table is fixed, since it would change nothing."""
    fixed = Network(n.name, columns=2 if n.name == "caffe_alexnet" else 1)
    for field in dataclasses.fields(n):
        value, only = getattr(n, field.name), getattr(fixed, field.name)
        require(f"network.{field.name}", value, value == only, f"{only} for {n.name}, whose table is fixed")


def _check_data(d: Data) -> None:
    require("data.validation", d.validation, d.validation >= 1, "at least 1 image")
    require("data.crop_padding", d.crop_padding, d.crop_padding >= 0, "0 or more pixels")
    require("data.crop", d.crop, d.crop >= 0, "0 (the image's own side) or more pixels")
    require("data.side", d.side, d.side >= 8, "at least 8 pixels")
    require("data.workers", d.workers, d.workers is None or d.workers >= 0, "0 or more processes")
    some = d.colour_epochs is None or (d.colour_epochs >= 0 and d.colour != "none")
    require("data.colour_epochs", d.colour_epochs, some, "0 or more epochs, with data.colour=original or paper")
    require("data.views", d.views, d.views == 1 or d.crop > 0, "1 unless data.crop says how large a view is")


def _check_optim(o: Optim, t: Train) -> None:
    for name in ("learning_rate", "bias_learning_rate", "new_rate"):
        value = getattr(o, name)
        require(f"optim.{name}", value, math.isfinite(value) and value > 0, "a positive number")
    require("optim.momentum", o.momentum, 0 <= o.momentum < 1, "at least 0 and below 1")
    require("optim.weight_decay", o.weight_decay, math.isfinite(o.weight_decay) and o.weight_decay >= 0, "0 or more")
    require("train.epochs", t.epochs, math.isfinite(t.epochs) and t.epochs > 0, "a positive number")
    require("optim.warmup", o.warmup, 0 <= o.warmup < t.epochs, f"at least 0 and below train.epochs={t.epochs:g}")
    falls = o.schedule != "plateau" or 0 < o.drop_factor < 1
    require("optim.drop_factor", o.drop_factor, falls, "above 0 and below 1 with optim.schedule=plateau")
    require("optim.patience", o.patience, o.patience >= 1, "1 or more validations")
    by_hand = o.schedule != "original" or o.rule == "original"  # its biases keep their rate
    require("optim.schedule", o.schedule, by_hand, "another one unless optim.rule=original")
    drops_rise = all(a < b for a, b in zip((0.0, *o.drops), o.drops, strict=False))
    require("optim.drops", o.drops, drops_rise, "rising epochs above 0")
    none_lost = o.schedule == "drops" or not o.drops
    only = f"empty with optim.schedule={o.schedule}: only the schedule `drops` reads it"
    require("optim.drops", o.drops, none_lost, only)
    require("optim.drop_factor", o.drop_factor, 0 < o.drop_factor <= 1, "above 0 and at most 1")


def _check_train(t: Train) -> None:
    for name in ("batch", "eval_batch", "log_every", "keep"):
        value = getattr(t, name)
        require(f"train.{name}", value, value >= 1, "1 or more")
    require("train.save_every", t.save_every, t.save_every >= 0, "0 or more")
    require("train.seed", t.seed, 0 <= t.seed < 2**32, "0 or more and below 2**32")


def _check_mesh(m: MeshOptions, n: Network, t: Train) -> None:
    for name in ("data", "column"):
        value = getattr(m, name)
        require(f"mesh.{name}", value, value is None or value >= 1, "1 or more")
    data = m.data or 1
    expected = f"a multiple of the {data} data-parallel devices of --mesh.data={data}"
    require("train.batch", t.batch, t.batch % data == 0, expected)
    fits = m.column is None or n.columns % m.column == 0
    require("mesh.column", m.column, fits, f"1{f' or {n.columns}' if n.columns > 1 else ''}, the columns of the network")
    hybrid = m.placement == "hybrid"
    one = "columns, unless network.columns=1 (network.kernels=merged is the network of One weird trick)"
    require("mesh.placement", m.placement, not hybrid or n.columns == 1, one)
    require("mesh.scheme", m.scheme, m.scheme == "whole" or hybrid, "whole, unless mesh.placement=hybrid")
    split = not hybrid or not n.name.startswith("alexnet") or n.fc_units % data == 0
    require("network.fc_units", n.fc_units, split, f"a multiple of the {data} devices of --mesh.data={data}")


def require(option: str, value: Any, holds: bool, expected: str) -> None:
    """Raise UsageError with the option, its value and what was expected unless the condition holds."""
    if not holds:
        raise UsageError(f"--{option}={value}: expected {expected}.")
