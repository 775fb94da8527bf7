"""Parse every command on every page with the program's own parser, and run the cheap ones on narrow networks."""

import importlib.util
import re
import shutil
from pathlib import Path

import numpy as np
import pages
import pytest
from PIL import Image
from running import NARROW, epochs, main

import experiments
from alexnet_jax.command_line import read
from alexnet_jax.modes import MODES
from alexnet_jax.sweeps.plan import Sweep

pytest_plugins = ["running"]

COMMANDS = sorted({command for page in pages.PAGES for command in pages.commands(page)})
LAUNCHES = [command for command in COMMANDS if " launch.py " in command and "NAME" not in command]
MODULES = [command for command in COMMANDS if " -m " in command]
SHOWS = ("--list", "--help")


def options(command):
    """Return {--option: value} of a command line."""
    return dict(([*word.split("=", 1), ""])[:2] for word in pages.words(command))


@pytest.mark.parametrize(
    ("page", "least"), [("README.md", 12), ("docs/commands.md", 19), ("docs/cluster.md", 4), ("docs/slurm.sh", 1)]
)
def test_the_commands_of_a_page_are_found(page, least):
    assert len(pages.commands(page)) >= least


@pytest.mark.parametrize("command", [c for c in LAUNCHES if not options(c).keys() & {*SHOWS}])
def test_a_command_is_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mode, _ = read(pages.words(command))
    given = options(command)
    assert mode == ("dry_run" if "--dry_run" in given else given.get("--mode", "train"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", MODULES)
def test_a_module_exists_and_knows_its_options(command):
    module = importlib.util.find_spec(command.split()[2])
    assert module is not None and module.origin is not None
    if command.split()[2].startswith(("benchmarks.", "docs.")):
        source = Path(module.origin).read_text(encoding="utf-8")
        for name in re.findall(r"--(\w+)", command):
            assert re.search(rf'"--{name}"|^    {name}: ', source, re.MULTILINE), name


def shortened(command):
    """Return arguments with which a command takes seconds, or None if it needs other data, programs or processes."""
    given = options(command)
    if given.keys() & {*SHOWS}:
        return pages.words(command)
    mode, sweep = given.get("--mode", "train"), isinstance(experiments.find(given["--exp"]), Sweep)
    if mode in ("summary", "traffic"):
        return pages.words(command)
    if sweep or mode in ("prepare", "import") or given.keys() & {"--processes", "--distributed", "--data.dir"}:
        return None
    if "restore" in MODES[mode].reads and mode != "train":  # reads the finished run that the test copies to the folder
        given.pop("--data.prepared", None)
    elif mode == "train":
        narrow = {f"--{name}": str(value) for name, value in NARROW.items() if name not in ("exp", "network.dropout")}
        given = narrow | {"--data.name": "digits", "--data.validation": "180"} | given | {"--train.epochs": str(epochs(2))}
        if "--restore" in given or experiments.experiment(given["--exp"]).network.name != "alexnet_cifar":
            return None
    return [f"{name}={value}" if value else name for name, value in given.items()]


COMPILED_ELSEWHERE = "--exp=alexnet_digits"
"""The experiment whose trainings are in the quick tier; each other training compiles another program."""

LONG_MODES = ("gradcheck", "neighbours", "features")
"""Modes that compile a program for each command; their own tests are in the quick tier."""


def tier(words):
    """Return a case of the test below; trainings that take long belong to the long tier."""
    line = " ".join(words)
    long = ("--train.epochs=" in line and COMPILED_ELSEWHERE not in line) or any(f"--mode={m}" in line for m in LONG_MODES)
    return pytest.param(words, id=line, marks=[pytest.mark.evidence] if long else [])


CHEAP = [tier(words) for words in sorted({tuple(words) for words in map(shortened, LAUNCHES) if words is not None})]


@pytest.mark.parametrize("words", CHEAP)
def test_a_cheap_command_runs(words, learned, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = dict(([*word.split("=", 1), ""])[:2] for word in words)
    if "restore" in MODES[given.get("--mode", "train")].reads and "--mode" in given:
        shutil.copytree(learned, given.get("--workdir", f"runs/{given['--exp']}"))
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("cat.jpg")
    assert main(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
