"""Check the output and errors of `--mode=traffic` from the command line."""

import re

import pytest

import launch
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Experiment, MeshOptions, Network
from alexnet_jax.traffic import predicted, show
from alexnet_jax.traffic.predicted import Partition

NARROW = ["--exp=alexnet_digits", "--network.width=0.0625", "--network.fc_units=32", "--mode=traffic"]
MERGED = ["--network.columns=1", "--network.kernels=merged", "--mesh.placement=hybrid"]


@pytest.fixture
def shown(capsys, tmp_path, monkeypatch):
    """Return a function that runs a command in an empty folder and returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = launch.main([*NARROW, *arguments])
        assert not list(tmp_path.iterdir())
        return status, *capsys.readouterr()

    return run


def test_prints_bytes_of_every_layer_and_placement(shown):
    status, out, _ = shown()
    assert status == 0
    assert "64 images per step in float32 on 2 devices: the batch undivided, columns over 2" in out
    assert "The traced training step has the same 24 collectives, byte for byte." in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    gathered = 8 * 8 * 8 * 64 * 4 / 1e6  # conv2 at a sixteenth of the width has 8 maps of 8x8 per column
    assert lines["conv3"][1] == lines["conv3"][3] == f"{gathered:.3f}"
    assert lines["conv4"][1] == lines["conv4"][3] == "-"
    assert {"data", "hybrid"} <= set(lines) and "efficiency" not in out


def test_steps_are_predicted_from_given_rates(shown):
    status, out, _ = shown(*MERGED, "--mesh.data=8", "--traffic.link=6", "--traffic.compute=1.58")
    assert status == 0 and "units of fully connected layers over all devices (hybrid)" in out
    rows = [line for line in out.splitlines() if line.endswith("%")]
    assert len(rows) == 3  # by images, hybrid, every layer by maps
    for row in rows:
        compute, sending, step, best = map(float, re.findall(r"[\d.]+", row)[-5:-1])
        assert step == pytest.approx(compute + sending, abs=0.11) and best == max(compute, sending)


def test_prints_thousands_of_devices(shown):
    status, out, _ = shown("--mesh.data=2048", "--mesh.column=2", "--train.batch=4096")
    assert status == 0 and "4,096 devices: 2,048 shares of the batch, columns over 2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*MERGED, "--network.fc_units=33"], "The 33 units of fc6 do not divide over 2 devices."),
        (["--traffic.link=6"], "--traffic.link=6.0: expected both --traffic.link and --traffic.compute, or neither."),
        (["--traffic.link=-1", "--traffic.compute=1"], "--traffic.link=-1.0: expected a positive number."),
        (["--mode=summary", "--traffic.link=1"], "--traffic.link=1.0: expected only with --mode=traffic, not summary."),
        (["--mesh.data=3"], "--train.batch=64: expected a multiple of the 3 data-parallel devices"),
        (["--exp=pooling_sweep"], "--mode=traffic is not for sweeps"),
    ],
)
def test_options_that_do_not_fit_are_one_error(arguments, message, shown):
    status, _, error = shown(*arguments)
    assert status == 2 and error.startswith("Error: " + message) and error.count("\n") == 1


def test_an_unpredicted_collective_is_an_error(monkeypatch, shown):
    monkeypatch.setattr(show, "moves", lambda *options: predicted.moves(*options)[1:])
    status, _, error = shown()
    assert status == RunError.exit_status and "Only in the step: [Move(layer='conv1'" in error


@pytest.mark.parametrize(
    ("columns", "mesh", "expected"),
    [
        (2, MeshOptions(), Partition("columns", 1, 2)),
        (1, MeshOptions(), Partition("columns", 2, 1)),
        (2, MeshOptions(data=4), Partition("columns", 4, 2)),
        (2, MeshOptions(column=1), Partition("columns", 1, 1)),
        (1, MeshOptions(placement="hybrid"), Partition("hybrid", 2)),
        (1, MeshOptions(data=4, placement="hybrid", scheme="slices"), Partition("hybrid", 4, slices=4)),
    ],
)
def test_partition_of_incomplete_mesh_options(columns, mesh, expected):
    assert show.partition_of(Experiment("x", network=Network(columns=columns), mesh=mesh)) == expected
