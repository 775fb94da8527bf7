"""Check the split on which an assembled experiment measures statistics, and the steps that have colour noise."""

import jax
import numpy as np
from running import command, epochs

from alexnet_jax.assembly import assemble, assemble_training
from alexnet_jax.command_line import read
from alexnet_jax.data import registry
from alexnet_jax.experiment import DIGITS

pytest_plugins = ["running"]


def test_statistics_are_measured_without_validation_images():
    _, request = read(command("runs/none", data__validation=700))
    digits = registry.load(request.experiment.data)
    whole = digits.train.images.mean(0)
    for setup in (assemble_training(request.experiment, digits), assemble(request.experiment, digits)):
        assert (len(setup.training), len(setup.validation)) == (737, 700)
        np.testing.assert_allclose(setup.stats.mean, setup.training.images.mean(0), atol=1e-3)
        assert np.abs(setup.stats.mean - whole).max() > 1


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
