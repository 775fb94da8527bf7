"""Fixtures: the run of an untrained narrow network, and a plain network as the reference for its outputs."""

import functools

import jax
import numpy as np
import pytest
from running import command, trainer

from alexnet_jax.command_line import read
from alexnet_jax.data import order, registry, statistics
from alexnet_jax.model import initialize
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.records import DataIdentity, Environment, RunRecord
from alexnet_jax.run.workdir import Workdir
from alexnet_jax.train import INIT, stream
from benchmarks import plain


@pytest.fixture(scope="session")
def parameters(compile_cache):
    """Return the initial parameters of the untrained run."""
    own = trainer()
    return initialize(own.table, stream(own.experiment.train.seed, INIT), own.placement)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory, parameters):
    """Return a run folder with one checkpoint, at step 1. Tests must not write into it."""
    run = tmp_path_factory.mktemp("untrained") / "run"
    run.mkdir()
    Workdir(run).write_record(RunRecord(trainer().experiment, DataIdentity("digits", ""), Environment()))
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(1, parameters, {"count": np.int32(0)})
    checkpoints.close()
    return run


@pytest.fixture(scope="session")
def digits():
    """Return the splits of the digits, {train, validation, test}."""
    _, request = read(command("runs/none"))
    data_set = registry.load(request.experiment.data)
    training, validation = order.hold_out(data_set, request.experiment.data.validation)
    return {"train": training, "validation": validation, "test": data_set.test}


@pytest.fixture(scope="session")
def reference(digits, parameters):
    """Return a function (images, layer) -> float64 [n, units], the outputs of a layer of a plain network."""
    own = trainer()
    host = jax.device_get(parameters)
    stats = statistics.measure(digits["train"], own.experiment.data)

    def outputs(images, layer="fc8"):
        table = own.table.until(layer)
        seen = ((images - stats.mean) / stats.scale).astype(np.float32)
        found = jax.jit(functools.partial(plain.logits, table))(host, seen)
        return np.asarray(found, np.float64).reshape(len(images), -1)

    return outputs


@pytest.fixture
def no_picture(monkeypatch):
    """Skip the figures, which take most of the time, in tests of the text."""
    for name in ("kernels", "predictions", "neighbours"):
        monkeypatch.setattr(f"alexnet_jax.qualitative.paper_figures.{name}", lambda *_: None)
