"""Experiments and sweeps: each file has an EXPERIMENT or a SWEEP. `--list` prints the first line of its docstring."""

import ast
import difflib
import importlib
from pathlib import Path

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.sweeps.plan import Sweep

FILES = {path.stem: path for path in sorted(Path(__file__).parent.glob("[!_]*.py"))}
"""{name: file} of every experiment and sweep."""


def names() -> dict[str, str]:
    """Return {name: first line of its docstring}. The files are parsed, not imported."""
    docstrings = {name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for name, path in FILES.items()}
    return {name: (text or "").partition("\n")[0] for name, text in docstrings.items()}


def find(name: str) -> Experiment | Sweep:
    """Return the experiment or sweep of this name. Raises UsageError with the nearest name if it does not exist."""
    if name not in FILES:
        near = difflib.get_close_matches(name, FILES, 1)
        hint = f"Did you mean --exp={near[0]}?" if near else f"Expected one of {', '.join(FILES)}."
        raise UsageError(f"--exp={name}: no such experiment. {hint} (python launch.py --list)")
    module = importlib.import_module(f"{__name__}.{name}")
    return module.SWEEP if hasattr(module, "SWEEP") else module.EXPERIMENT


def experiment(name: str) -> Experiment:
    """Return the experiment of this name. Raises UsageError if it does not exist or is a sweep."""
    found = find(name)
    if isinstance(found, Sweep):
        raise UsageError(f"{name} is a sweep; expected an experiment, such as {found.base}.")
    return found
