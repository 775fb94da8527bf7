"""The check passes where gradients are right, on every mesh, and names the leaves where they are wrong; kinks are no errors."""

import re

import jax
import numpy as np
import pytest
from running import command, main

import experiments
from alexnet_jax import columns, gradcheck, layers
from alexnet_jax.gradcheck import TOLERANCE, difference, fresh, slopes
from alexnet_jax.sweeps.plan import Sweep

pytest_plugins = ["running"]

EXPERIMENTS = [name for name in experiments.names() if not isinstance(experiments.find(name), Sweep)]


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_every_leaf_of_a_narrow_network_agrees(mesh, narrow, float64, compile_cache):
    table, mesh = narrow(dropout=0.5), columns.make_mesh(*mesh)
    found = list(slopes(table, mesh, fresh(table, mesh, 64.0, 0), 64.0, 0))
    assert [each.leaf for each in found] == [f"{s.name}/{kind}" for s in table.layers for kind in ("kernel", "bias")]
    assert all(each.error < TOLERANCE for each in found), {each.leaf: each.error for each in found}
    assert all(np.linalg.norm(each.analytic) > 0 for each in found)


@pytest.fixture
def crooked_tanh(monkeypatch):
    """tanh whose gradient is a thousandth too large."""

    @jax.custom_vjp
    def tanh(x):
        return jax.numpy.tanh(x)

    tanh.defvjp(lambda x: (tanh(x), tanh(x)), lambda y, g: (1.001 * g * (1 - y * y),))
    monkeypatch.setattr(layers, "tanh", tanh)


def test_a_gradient_that_is_wrong_by_a_thousandth_is_found(crooked_tanh, tmp_path, capsys, compile_cache):
    assert main(command(tmp_path, mode="gradcheck", network__activation="tanh", network__without="conv4")) == 1
    output = capsys.readouterr()
    assert "14 leaves" not in output.err and "12 of 14 gradients are not the slope of the loss" in output.err
    errors = dict(re.findall(r"^(\w+/\w+) .* ([\d.e-]+)$", output.out, re.MULTILINE))
    assert len(errors) == 14
    assert float(errors["fc8/kernel"]) < TOLERANCE and float(errors["fc8/bias"]) < TOLERANCE
    assert float(errors["fc7/kernel"]) == pytest.approx(1e-3, rel=0.01)
    assert float(errors["conv1/kernel"]) == pytest.approx(6e-3, rel=0.05)  # six tanh below each other
    assert not list(tmp_path.iterdir())


def test_a_kink_within_the_first_step_is_avoided():
    kinked = lambda x: 3 * x + 5 * max(0.0, x - 3e-7)  # noqa: E731
    step, slope = difference(kinked, 0.0, 1e-6)
    assert step == pytest.approx(1e-7) and slope == pytest.approx(3)


def test_at_a_kink_the_slopes_never_agree():
    step, slope = difference(lambda x: max(0.0, x), 0.0, 1e-6)
    assert slope == pytest.approx(0.5)
    assert step == pytest.approx(1e-6 / 10 ** (gradcheck.ATTEMPTS - 1)) or step == 1e-6


def test_where_the_loss_never_changes_nothing_was_checked(narrow):
    nothing = gradcheck.Slopes("fc8/bias", 10, 1e-5, np.zeros(4), np.zeros(4))
    with pytest.raises(gradcheck.RunError, match="1 of 1 gradients are not the slope of the loss"):
        gradcheck._judge([nothing])


@pytest.mark.evidence
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_at_its_own_size(name, tmp_path, capsys, compile_cache):
    assert main([f"--exp={name}", "--mode=gradcheck", f"--workdir={tmp_path}"]) == 0, capsys.readouterr()
