"""Check that a plain training without CIFAR-10 uses the digits, and that explicit choices are never replaced."""

import json

import pytest
from commands import status
from running import NARROW, epochs, numbers

import experiments
from alexnet_jax.data import registry
from alexnet_jax.errors import DataNotFoundError
from alexnet_jax.experiment import DIGITS, flatten, from_json

pytest_plugins = ["commands", "running"]
pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def without_cifar(monkeypatch):
    """Make CIFAR-10 unavailable, and name no folder of data sets."""
    load = registry.load

    def only_digits(data, **options):
        if data.name == "cifar10":
            raise DataNotFoundError("CIFAR-10 is nowhere.")
        return load(data, **options)

    monkeypatch.setattr(registry, "load", only_digits)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


@pytest.fixture
def a_checkpoint(empty_folder):
    """Turn the working directory into a checkpoint, so that --restore=. is valid."""
    (empty_folder / "parameters").mkdir()


FOUND, WANTED = (flatten(experiments.experiment(name)) for name in ("alexnet_digits", "alexnet_cifar"))
ALIKE = {name: FOUND[name] for name in FOUND if name.startswith(("network.", "optim.")) and FOUND[name] != WANTED[name]}
"""Options with which the compiled step of alexnet_cifar on the digits equals that of alexnet_digits."""

ONE_STEP = [
    f"--{name}={value}"
    for name, value in (ALIKE | NARROW | {"exp": "alexnet_cifar", "train.epochs": epochs(1)}).items()
    if value != []
]


def trained(folder):
    """Return the experiment that was trained in a folder, and the number of steps."""
    record = json.loads((folder / "experiment.json").read_text())
    return from_json(record["experiment"]), len(numbers(folder))


def test_a_plain_training_falls_back_to_the_digits(without_cifar, compile_cache, empty_folder, capsys):
    assert status(*ONE_STEP) == 0
    experiment, steps = trained(empty_folder / "runs" / "alexnet_cifar-on-digits")
    assert (experiment.name, experiment.data, steps) == ("alexnet_cifar-on-digits", DIGITS, 1)
    shown = capsys.readouterr().out
    assert "CIFAR-10 is nowhere." in shown and "digits" in shown
    assert not (empty_folder / "runs" / "alexnet_cifar").exists()


def test_a_chosen_folder_stays_chosen_in_the_fallback(without_cifar, compile_cache, empty_folder):
    assert status(*ONE_STEP, "--workdir=mine") == 0
    assert trained(empty_folder / "mine")[0].data == DIGITS
    assert [path.name for path in empty_folder.iterdir()] == ["mine"]


@pytest.mark.parametrize("options", [("--data.fallback=error",), ("--data.dir=.",), ("--restore=.",)], ids=" ".join)
def test_no_fallback_from_an_explicit_choice(without_cifar, a_checkpoint, empty_folder, options, capsys):
    assert status(*ONE_STEP, *options) == 2
    assert "CIFAR-10 is nowhere." in capsys.readouterr().err
    assert not (empty_folder / "runs").exists()


def test_no_fallback_from_a_named_data_folder(without_cifar, monkeypatch, refused):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    assert "CIFAR-10 is nowhere." in refused(*ONE_STEP)


def test_no_fallback_in_evaluation(without_cifar, a_checkpoint, empty_folder, capsys):
    assert status(*ONE_STEP, "--mode=eval", "--restore=.") == 2
    assert "CIFAR-10 is nowhere." in capsys.readouterr().err
    assert not (empty_folder / "runs").exists()
