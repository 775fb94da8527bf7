"""Check the split on which an assembled experiment measures statistics, and the steps that have colour noise."""

import dataclasses

import jax
import numpy as np
import pytest
from running import command, epochs

from alexnet_jax.assembly import assemble, assemble_training, trained_with
from alexnet_jax.command_line import read
from alexnet_jax.data import registry, statistics
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import DIGITS, Experiment
from alexnet_jax.run.records import DataIdentity, Environment, RunRecord
from alexnet_jax.run.workdir import Workdir

pytest_plugins = ["running"]


def test_statistics_are_measured_without_validation_images():
    _, request = read(command("runs/none", data__validation=700))
    digits = registry.load(request.experiment.data)
    whole = digits.train.images.mean(0)
    for setup in (assemble_training(request.experiment, digits), assemble(request.experiment, digits)):
        assert (len(setup.training), len(setup.validation)) == (737, 700)
        np.testing.assert_allclose(setup.stats.mean, setup.training.images.mean(0), atol=1e-3)
        assert np.abs(setup.stats.mean - whole).max() > 1


def test_lost_statistics_are_those_of_the_origin(tmp_path):
    """A run that started from another one sees its images with the statistics of the other one."""
    origin, run = tmp_path / "origin" / "checkpoints" / "5", tmp_path / "run" / "checkpoints" / "7"
    for folder in (origin, run):
        folder.mkdir(parents=True)
    measured = Statistics(np.ones((1, 1, 3), np.float32), 2.0)
    statistics.save(measured, tmp_path / "origin" / "statistics.npz")
    for restored_from, expected in ((str(origin), 2.0), (None, None)):
        record = RunRecord(Experiment("e"), DataIdentity("d", "0"), Environment(), restored_from)
        Workdir(tmp_path / "run").write_record(record)
        found = trained_with(run)
        assert (found and found.scale) == expected
    weights = RunRecord(Experiment("e"), DataIdentity("d", "0"), Environment(), str(tmp_path / "alexnet.npz"))
    for known in (None, False):  # of an earlier version, or imported without statistics
        Workdir(tmp_path / "run").write_record(dataclasses.replace(weights, has_statistics=known))
        assert trained_with(run) is None
    Workdir(tmp_path / "run").write_record(dataclasses.replace(weights, has_statistics=True))
    with pytest.raises(RunError, match=r"statistics\.npz is missing, and it cannot be read again from .*alexnet\.npz"):
        trained_with(run)


def test_colour_noise_ends_with_its_last_epoch():
    """Compare with noise in every step: noise in the first three steps is the same there and absent from step 3 on."""

    def seen(step, **options):
        _, request = read(command("runs/none", data__colour="original", **options))
        setup = assemble_training(request.experiment, digits)
        return np.asarray(setup.trainer().images(setup.training.images[:32], jax.random.key(1), np.int32(step)))

    digits = registry.load(DIGITS)
    three = {"data__colour_epochs": epochs(3)}
    assert [np.array_equal(seen(step), seen(step, **three)) for step in range(5)] == [True, True, True, False, False]
    silent = {"data__colour_epochs": 0}
    assert np.array_equal(seen(3, **three), seen(3, **silent)) and not np.array_equal(seen(2, **three), seen(2, **silent))
