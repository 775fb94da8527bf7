"""One file per experiment or sweep, with an EXPERIMENT or a SWEEP; the first line of its docstring is what `--list` prints."""

import difflib
import importlib
import pkgutil

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.sweeps.plan import Sweep


def names() -> dict[str, str]:
    """{experiment: first line of its file}."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: (importlib.import_module(f"{__name__}.{name}").__doc__ or "").splitlines()[0] for name in found}


def find(name: str) -> Experiment | Sweep:
    """The experiment or sweep of this name. Raises UsageError with the nearest name."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"Did you mean --exp={near[0]}?" if near else f"There are: {', '.join(names())}."
        raise UsageError(f"--exp={name}: no such experiment. {hint} (python launch.py --list)")
    module = importlib.import_module(f"{__name__}.{name}")
    return module.SWEEP if hasattr(module, "SWEEP") else module.EXPERIMENT


def experiment(name: str) -> Experiment:
    """The experiment of this name. Raises UsageError when there is none or it is a sweep."""
    found = find(name)
    if isinstance(found, Sweep):
        raise UsageError(f"{name} is a sweep; expected an experiment, such as {found.base}.")
    return found
