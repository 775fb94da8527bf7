"""Run command lines in this process in an empty folder, and check the error messages of rejected ones.

A test module gets the fixtures by `pytest_plugins = ["commands"]`.
"""

import re

import pytest
from running import ROOT

import experiments
import launch
from alexnet_jax.sweeps.plan import Sweep

NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))

SWEEPS = {name for name in NAMES if isinstance(experiments.find(name), Sweep)}


def status(*arguments):
    """Return the exit status of a command line."""
    try:
        return launch.main(list(arguments))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Run each command in an empty folder, without changing the memory allocator of this process."""
    monkeypatch.setattr(launch, "keep_memory", lambda: False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys, empty_folder):
    """Return a function that runs a command, asserts that it is rejected as wrong usage, and returns the message."""

    def run(*arguments):
        assert status(*arguments) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert not list(empty_folder.iterdir())
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", message).split())

    return run
