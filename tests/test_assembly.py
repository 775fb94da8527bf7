"""Check the split on which an assembled experiment measures statistics, and the steps that have colour noise."""

import numpy as np
from running import command, epochs, numbers, train

from alexnet_jax.assembly import assemble, assemble_training
from alexnet_jax.command_line import read
from alexnet_jax.data import registry

pytest_plugins = ["running"]


def test_statistics_are_measured_without_validation_images():
    _, request = read(command("runs/none", data__validation=700))
    digits = registry.load(request.experiment.data)
    whole = digits.train.images.mean(0)
    for setup in (assemble_training(request.experiment, digits), assemble(request.experiment, digits)):
        assert (len(setup.training), len(setup.validation)) == (737, 700)
        np.testing.assert_allclose(setup.stats.mean, setup.training.images.mean(0), atol=1e-3)
        assert np.abs(setup.stats.mean - whole).max() > 1


def test_colour_noise_ends_with_its_last_epoch(tmp_path):
    """With noise in three steps only, the fourth loss is the first that differs from a run with noise in every step."""
    options = {"data__colour": "original", "train__epochs": epochs(5)}
    assert train(tmp_path / "always", **options) == 0
    assert train(tmp_path / "three", data__colour_epochs=epochs(3), **options) == 0
    always, three = ([line["loss"] for line in numbers(tmp_path / run)] for run in ("always", "three"))
    assert len(always) == 5
    assert [a == b for a, b in zip(always[:4], three[:4], strict=True)] == [True, True, True, False]
