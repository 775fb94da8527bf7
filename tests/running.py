"""Run launch.py with the narrowest network, in this process or a separate one, and provide trained runs to the tests.

A test module gets the fixtures by `pytest_plugins = ["running"]`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import launch
from alexnet_jax import training
from alexnet_jax.assembly import assemble_training
from alexnet_jax.command_line import read
from alexnet_jax.data import registry
from alexnet_jax.run.records import read_metrics
from alexnet_jax.run.restore import OPTIMIZER, PARAMETERS, restore_trees, step_folders
from alexnet_jax.train import Trainer

ROOT = Path(__file__).resolve().parents[1]

NARROW = {
    "exp": "alexnet_digits",
    "network.width": 0.0625,
    "network.fc_units": 32,
    "network.dropout": 0.1,
    "optim.schedule": "constant",
    "optim.warmup": 0,
    "train.batch": 32,
    "train.eval_batch": 180,
    "train.log_every": 1,
    "train.tune_allocator": False,
    "train.compile_cache": False,
    "mesh.data": 1,
    "mesh.column": 1,
}
STEPS_PER_EPOCH = 39  # 1,257 training digits in batches of 32
LEARNING_EPOCHS = 3


def epochs(steps):
    """Return the value of --train.epochs for a number of steps."""
    return steps / STEPS_PER_EPOCH


def command(workdir, **options):
    """Return arguments of launch.py: NARROW, updated with `options`; `train__epochs=2` means --train.epochs=2."""
    named = {name.replace("__", "."): value for name, value in options.items()}
    return [f"--{name}={value}" for name, value in (NARROW | {"workdir": workdir} | named).items()]


def main(arguments):
    """Return the exit status of launch.main in this process, whose devices conftest.py has already configured."""
    try:
        return launch.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def train(workdir, **options):
    """Train a narrow network in this process and return the exit status."""
    return main(command(workdir, **options))


def start(arguments, cache, log, *python_options, devices=None):
    """Start launch.py in a separate process that reads compiled programs from `cache` and writes its output to `log`.

    The process has `devices` virtual devices, by default as many as this process.
    """
    variables = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    # XLA's thread pool depends on the number of devices, and on some processors the order of sums depends on the pool.
    variables["JAX_NUM_CPU_DEVICES"] = str(devices or len(jax.devices()))
    command = [sys.executable, *python_options, "launch.py", *map(str, arguments)]
    with log.open("w") as output:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT)


def wait_for(happened, process, log, seconds=300):
    """Wait until `happened()` is true. Fail if the process ends before, or after `seconds`."""
    end = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None:
            pytest.fail(f"ended too early, with status {process.returncode}:\n{log.read_text()}")
        if time.monotonic() > end:
            process.kill()
            pytest.fail(f"nothing happened in {seconds} s:\n{log.read_text()}")
        time.sleep(0.01)


def trainer(data=1, column=1, *, rule="paper", precision="float32", **network):
    """Return a Trainer of the narrow experiment on a mesh; `network` replaces fields of its network."""
    options = {f"network__{name}": value for name, value in network.items()} | {"train__precision": precision}
    arguments = command("runs/none", optim__rule=rule, mesh__data=data, mesh__column=column, **options)
    _, request = read(arguments)
    return assemble_training(request.experiment, registry.load(request.experiment.data)).trainer()


def first_state(workdir, **options):
    """Return (trainer, state before the first step) of a training with these options, without writing files."""
    _, request = read([str(argument) for argument in command(workdir, **options)])
    run = training.prepare(request)
    return run.trainer, training.restore(run)


def same_bits(a, b):
    """Return whether two trees have the same leaves, bit for bit."""
    a, b = ([np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)] for tree in (a, b))
    return a == b


def state(run, step=None, on: Trainer | None = None):
    """Return (parameters, optimizer state) of a checkpoint of a run, by default the latest, restored on any mesh."""
    abstract, folder = (on or trainer()).abstract_state(), Path(run) / "checkpoints"
    found = folder / str(step) if step else step_folders(folder)[-1]
    return restored(found, abstract.parameters, abstract.optimizer)


def restored(step, parameters, optimizer):
    """Return both trees of a checkpoint folder, with the shardings of the given abstract trees."""
    trees = restore_trees(step, {PARAMETERS: parameters, OPTIMIZER: optimizer})
    return trees[PARAMETERS], trees[OPTIMIZER]


def numbers(run, kind="train"):
    """Return the lines of one kind in metrics.jsonl, without the fields that differ between two equal runs."""
    passing = {"time", "seconds", "images_per_second"}
    return [
        {k: v for k, v in line.items() if k not in passing}
        for line in read_metrics(Path(run) / "metrics.jsonl")
        if line["kind"] == kind
    ]


def contents(folder):
    """Return {path: (bytes, time of last change)} of every file in a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def result(run):
    """Return the content of result.json of a finished run."""
    return json.loads((Path(run) / "result.json").read_text())


@pytest.fixture(scope="session")
def learned(tmp_path_factory, compile_cache):
    """Return a finished run on one device that learned the digits. Tests must not write into it."""
    run = tmp_path_factory.mktemp("learned") / "run"
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        original = Trainer.step
        patch.setattr(Trainer, "step", lambda self: steps.append(original(self)) or steps[-1])
        assert train(run, train__epochs=LEARNING_EPOCHS, train__keep=2) == 0
    (run.parent / "programs").write_text(str(sum(step._cache_size() for step in steps)))
    return run


@pytest.fixture
def copied(learned, tmp_path):
    """Return a copy of the finished run, which the test may damage."""
    return Path(shutil.copytree(learned, tmp_path / "run"))


@pytest.fixture(scope="session")
def twenty_steps(tmp_path_factory, compile_cache):
    """Return a finished run of twenty steps without interruption, on one device."""
    run = tmp_path_factory.mktemp("twenty") / "run"
    assert train(run, train__epochs=epochs(20)) == 0
    return run


@pytest.fixture(scope="session")
def two_devices(tmp_path_factory, compile_cache):
    """Return a finished run of five steps with one column per device."""
    run = tmp_path_factory.mktemp("two") / "run"
    assert train(run, train__epochs=epochs(5), mesh__column=2) == 0
    return run
