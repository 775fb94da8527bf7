"""One file per experiment, each with an EXPERIMENT; the first line of its docstring is what `--list` prints."""

import difflib
import importlib
import pkgutil

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Experiment


def names() -> dict[str, str]:
    """{experiment: first line of its file}."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: (importlib.import_module(f"{__name__}.{name}").__doc__ or "").splitlines()[0] for name in found}


def find(name: str) -> Experiment:
    """The experiment of this name. Raises UsageError with the nearest name."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"Did you mean --exp={near[0]}?" if near else f"There are: {', '.join(names())}."
        raise UsageError(f"--exp={name}: no such experiment. {hint} (python launch.py --list)")
    return importlib.import_module(f"{__name__}.{name}").EXPERIMENT
