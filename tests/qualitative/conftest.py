"""A run of the narrowest network that was never trained, which is enough to compare what is shown of it with a plain network."""

import functools

import jax
import numpy as np
import pytest
from running import command, trainer

from alexnet_jax.command_line import read
from alexnet_jax.data import pipeline, sources, statistics
from alexnet_jax.model import initialize
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.environment import Environment
from alexnet_jax.run.workdir import DataIdentity, RunRecord, Workdir
from alexnet_jax.train import INIT, stream
from benchmarks import plain


@pytest.fixture(scope="session")
def parameters(compile_cache):
    """Of the untrained run: fresh ones."""
    own = trainer()
    return initialize(own.table, stream(own.experiment.train.seed, INIT), own.mesh)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory, parameters):
    """A run's folder with one checkpoint, of step 1. Tests must not write into it."""
    run = tmp_path_factory.mktemp("untrained") / "run"
    run.mkdir()
    Workdir(run).write_record(RunRecord(trainer().experiment, DataIdentity("digits", ""), Environment()))
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(1, parameters, {"count": np.int32(0)})
    checkpoints.close()
    return run


@pytest.fixture(scope="session")
def digits():
    """The digits' splits, {train, validation, test}."""
    _, request = read(command("runs/none"))
    data_set = sources.load(request.experiment.data)
    training, validation = pipeline.hold_out(data_set, request.experiment.data.validation)
    return {"train": training, "validation": validation, "test": data_set.test}


@pytest.fixture(scope="session")
def reference(digits, parameters, compiled):
    """A function (images, layer) -> [n, units]: what a plain network hands on at a layer of the untrained run, fc8's logits."""
    own = trainer()
    host = jax.device_get(parameters)
    stats = statistics.measure(digits["train"], own.experiment.data)

    def outputs(images, layer="fc8"):
        table = own.table.until(layer)
        seen = ((images - stats.mean) / stats.scale).astype(np.float32)
        found = compiled(functools.partial(plain.logits, table))(host, seen)
        return np.asarray(found, np.float64).reshape(len(images), -1)

    return outputs


@pytest.fixture
def no_picture(monkeypatch):
    """Leaves the picture out where only the text is looked at: it takes most of the time."""
    for name in ("kernels", "predictions", "neighbours"):
        monkeypatch.setattr(f"alexnet_jax.qualitative.paper_figures.{name}", lambda *_: None)
