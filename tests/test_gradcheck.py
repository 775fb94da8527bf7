"""Check that gradcheck passes for correct gradients on every mesh, names leaves with wrong ones, and avoids kinks."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from running import main

import experiments
from alexnet_jax import gradcheck
from alexnet_jax.columns import Columns
from alexnet_jax.gradcheck import TOLERANCE, difference, fresh, slopes
from alexnet_jax.hybrid import Hybrid
from alexnet_jax.network import layers
from alexnet_jax.network.table import LRN, Conv, Dense, Dropout, MaxPool, ReLU, Table
from alexnet_jax.sweeps.plan import Sweep

pytest_plugins = ["running"]

EXPERIMENTS = [name for name in experiments.names() if not isinstance(experiments.find(name), Sweep)]

SMALL = Table(
    "small",
    (10, 10, 3),
    2,
    (
        Conv("conv1", 8, 3, after=(ReLU(), LRN(), MaxPool())),
        Conv("conv2", 8, 3, padding=(1, 1), crossing="gather", bias=1.0, after=(ReLU(), MaxPool())),
        Dense("fc3", 16, "gather", after=(ReLU(), Dropout())),
        Dense("fc4", 10, "sum"),
    ),
)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_every_leaf_of_a_correct_network_passes(mesh, float64):
    placement = Columns.over(*mesh)
    found = list(slopes(SMALL, placement, fresh(SMALL, placement, 64.0, 0), 64.0, 0))
    assert [each.leaf for each in found] == [f"{s.name}/{kind}" for s in SMALL.layers for kind in ("kernel", "bias")]
    assert all(each.error < TOLERANCE for each in found), {each.leaf: each.error for each in found}
    assert all(np.linalg.norm(each.analytic) > 0 for each in found)


def test_the_hybrid_placement_in_slices_passes(float64):
    one, placement = dataclasses.replace(SMALL, columns=1), Hybrid.over(2, "slices")
    layers = tuple(dataclasses.replace(s, crossing=None) if s.crossing == "gather" else s for s in one.layers)
    one = dataclasses.replace(one, layers=layers)
    found = list(slopes(one, placement, fresh(one, placement, 64.0, 0), 64.0, 0))
    assert len(found) == 8 and all(each.error < TOLERANCE for each in found)


@pytest.fixture
def crooked_relu(monkeypatch):
    """Replace ReLU by a function whose gradient is a thousandth too large."""

    @jax.custom_vjp
    def relu(x):
        return jax.nn.relu(x)

    relu.defvjp(lambda x: (relu(x), x), lambda x, g: (1.001 * g * (x > 0),))
    monkeypatch.setattr(layers, "relu", relu)


def test_an_error_of_a_thousandth_is_found(crooked_relu, tmp_path, capsys):
    assert main(["--exp=lenet5_cifar", "--mode=gradcheck", f"--workdir={tmp_path}", "--mesh.data=1"]) == 1
    output = capsys.readouterr()
    assert "8 of 10 gradients differ from the slope of the loss by more than 1e-05: conv1/kernel, conv1/bias, " in output.err
    errors = dict(re.findall(r"^(\w+/\w+) .* ([\d.e-]+)$", output.out, re.MULTILINE))
    for above, layer in enumerate(("fc5", "fc4", "fc3", "conv2", "conv1")):  # number of ReLUs above the layer
        for kind in ("kernel", "bias"):
            found = float(errors.pop(f"{layer}/{kind}"))
            assert found == pytest.approx(1 - 1.001**-above, rel=0.02, abs=TOLERANCE)
    assert not errors and not list(tmp_path.iterdir())


def test_a_kink_within_the_first_step_is_avoided():
    kinked = lambda x: 3 * x + 5 * max(0.0, x - 3e-7)  # noqa: E731
    step, slope = difference(kinked, 0.0, 1e-6)
    assert step == pytest.approx(1e-7) and slope == pytest.approx(3)


def test_at_a_kink_the_slopes_never_agree():
    step, slope = difference(lambda x: max(0.0, x), 0.0, 1e-6)
    assert slope == pytest.approx(0.5)
    assert step == pytest.approx(1e-6 / 10 ** (gradcheck.ATTEMPTS - 1)) or step == 1e-6


def test_a_constant_loss_is_an_error():
    nothing = gradcheck.Slopes("fc8/bias", 10, 1e-5, np.zeros(4), np.zeros(4))
    with pytest.raises(gradcheck.RunError, match="1 of 1 gradients differ from the slope of the loss"):
        gradcheck.judge([nothing])


@pytest.mark.evidence
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_at_its_full_size(name, tmp_path, capsys, compile_cache):
    assert main([f"--exp={name}", "--mode=gradcheck", f"--workdir={tmp_path}"]) == 0, capsys.readouterr()
