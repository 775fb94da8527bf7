"""Suggest the name that was meant by a misspelt option, or by the name of an option of another program."""

import difflib
from collections.abc import Iterable

OF_OTHER_PROGRAMS = {
    "lr": "optim.learning_rate",
    "rate": "optim.learning_rate",
    "base_lr": "optim.learning_rate",
    "wd": "optim.weight_decay",
    "decay": "optim.weight_decay",
    "optimizer": "optim.rule",
    "lr_schedule": "optim.schedule",
    "scheduler": "optim.schedule",
    "milestones": "optim.drops",
    "warmup_epochs": "optim.warmup",
    "batch_size": "train.batch",
    "bs": "train.batch",
    "max_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "random_seed": "train.seed",
    "dtype": "train.precision",
    "amp": "train.precision",
    "dataset": "data.name",
    "data": "data.name",
    "data_dir": "data.dir",
    "data_path": "data.dir",
    "num_workers": "data.workers",
    "val_split": "data.validation",
    "model": "network.name",
    "arch": "network.name",
    "gpus": "mesh.column",
    "devices": "mesh.column",
    "experiment": "exp",
    "config": "exp",
    "exp_name": "exp",
    "resume": "workdir",
    "logdir": "workdir",
    "log_dir": "workdir",
    "output_dir": "workdir",
    "checkpoint": "restore",
    "ckpt": "restore",
    "checkpoint_path": "restore",
    "evaluate": "mode",
    "force": "overwrite",
    "nproc_per_node": "processes",
}
"""{last word of an option of other programs: the option here}"""


SIMILAR = 0.7
"""Smallest similarity, from 0 to 1, of a name that is suggested."""

MARGIN = 0.05
"""Largest distance from the similarity of the best suggestion to that of another one."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the names of `known` that `name` may have meant, the most probable first; none if none is near.

    Options of other programs come first, then options with the same last word (`seed` for `train.seed`), then similar ones.
    """
    known = list(known)
    last = name.rpartition(".")[2]
    found = [OF_OTHER_PROGRAMS[last]] if OF_OTHER_PROGRAMS.get(last) in known else []
    found += [one for one in known if one.rpartition(".")[2] == last]
    if not found:
        scores = {one: max(_similarity(name, one), _similarity(last, one.rpartition(".")[2])) for one in known}
        best = max(scores.values(), default=0.0)
        near = [one for one, score in scores.items() if score >= max(SIMILAR, best - MARGIN)]
        found = sorted(near, key=lambda one: -scores[one])
    return list(dict.fromkeys(found))[:most]


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def question(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return 'Did you mean train.seed or sweep.seeds?', with `prefix` before each name; '' if no name is near."""
    found = [f"{prefix}{one}" for one in nearest(name, known)]
    return f"Did you mean {' or '.join(found)}?" if found else ""
