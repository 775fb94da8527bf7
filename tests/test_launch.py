"""Check the output of commands without training: the list, the help and the summaries."""

import errno
import importlib
import os
import re
import subprocess
import sys

import pytest
from commands import NAMES, SWEEPS, status
from running import ROOT

import experiments
import launch
from alexnet_jax.checks import check
from alexnet_jax.data.registry import class_count
from alexnet_jax.errors import UsageError
from alexnet_jax.network import networks

pytest_plugins = ["commands"]
pytestmark = pytest.mark.usefixtures("empty_folder")


def test_list_shows_every_experiment_with_a_line(capsys):
    assert status("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 3 for line in lines)


def test_help_shows_the_defaults_of_the_experiment(capsys):
    assert status("--exp=alexnet_digits", "--help") == 0
    shown = capsys.readouterr().out
    for option in (
        "--mode",
        "--workdir",
        "--restore",
        "--overwrite",
        "--network.width",
        "--optim.learning_rate",
        "--mesh.column",
    ):
        assert option in shown
    assert "default: 0.125" in shown


@pytest.mark.parametrize("name", NAMES)
def test_experiment_or_sweep_is_complete(name):
    module = importlib.import_module(f"experiments.{name}")
    headline = module.__doc__.splitlines()[0]
    assert headline == headline.strip() and headline.endswith(".")
    found = experiments.find(name)
    assert found.name == name and f"python launch.py --exp={name}" in module.__doc__
    if name in SWEEPS:
        return
    check(found)
    table = networks.build(found.network, class_count(found.data))
    assert table.classes == class_count(found.data)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SWEEPS))
def test_summary_shows_parameters_and_what_crosses(name, capsys):
    assert status(f"--exp={name}", "--mode=summary") == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    network = experiments.experiment(name).network
    for spec in networks.build(network, 10).layers:
        crosses = network.columns == 2 and spec.name in ("conv3", "fc6", "fc7", "fc8")
        borders = name == "caffe_alexnet" and spec.name in ("conv1", "conv2")
        assert rows[spec.name].endswith(" -") != (crosses or borders)
        assert rows[spec.name].endswith("for LRN") == borders
    assert re.search(r"\d{3}", rows["total"])


def test_summary_of_the_papers_network(capsys):
    options = ("--network.name=alexnet", "--network.width=1", "--network.fc_units=4096", "--data.name=imagenet2012")
    assert status("--exp=alexnet_cifar", *options, "--mode=summary") == 0
    shown = capsys.readouterr().out
    assert "60,965,224" in shown
    assert "128 maps of 13x13" in shown  # conv3 receives those of the other column, pooled from 27x27
    assert "partial sums of 1,000 units" in shown


def test_summary_of_alexnet_imagenet(capsys):
    assert status("--exp=alexnet_imagenet", "--mode=summary") == 0
    assert "60,965,224" in capsys.readouterr().out


def test_summary_starts_no_device_and_writes_nothing(empty_folder):
    program = (
        "import sys, launch\n"
        "assert not {'jax', 'numpy'} & set(sys.modules)\n"  # the allocator is set before either is imported
        f"for name in {NAMES}:\n"
        "    assert launch.main([f'--exp={name}', '--mode=summary']) == 0\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert not list(empty_folder.iterdir())


def test_find_raises_before_anything_is_imported():
    with pytest.raises(UsageError, match="no such experiment"):
        experiments.find("alexnet cifar")
    assert not hasattr(experiments, "alexnet cifar")


WRITES = [(errno.ENOSPC, "The disk is full"), (errno.EACCES, "Is it readable and writable?")]


@pytest.mark.parametrize(("number", "remedy"), WRITES)
def test_a_file_that_cannot_be_written_ends_with_a_message(number, remedy, empty_folder, monkeypatch, capsys):
    def fails(*_):
        raise OSError(number, os.strerror(number), "/runs/a/report.md")

    monkeypatch.setattr(launch, "run", fails)
    assert status("--exp=alexnet_digits") == 1
    message = capsys.readouterr().err
    assert "/runs/a/report.md" in message and remedy in message and "Traceback" not in message


def test_other_errors_of_the_system_are_defects(empty_folder, monkeypatch):
    def fails(*_):
        raise OSError(errno.EINVAL, "a defect")

    monkeypatch.setattr(launch, "run", fails)
    with pytest.raises(OSError, match="a defect"):
        status("--exp=alexnet_digits")


@pytest.mark.parametrize("option", ["workdir", "restore", "data.prepared"])
def test_paths_that_are_not_utf8_are_refused_at_the_start(option, refused):
    assert r"caf\udce9' is not valid UTF-8" in refused("--exp=alexnet_digits", f"--{option}=caf\udce9")
