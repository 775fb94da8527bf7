"""Check which values bfloat16 computes in 16 bits, which keep 32, and that a network learns equally well."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import random_examples, random_parameters
from running import command, main, numbers, result, train, trainer

from alexnet_jax import columns
from alexnet_jax.columns import Columns
from alexnet_jax.data.pipeline import OnDevice
from alexnet_jax.model import dropout_masks, logits, loss_and_gradients
from alexnet_jax.network import layers
from alexnet_jax.network.table import LRN, MapNorm, MaxPool, shapes

pytest_plugins = ["running"]


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("part", [LRN(), LRN(alpha=0.01, beta=0.6), MapNorm()])
def test_lrn_rounds_only_its_result(part):
    x, g = (100 * normal(7, 4, 4, 2, seed=seed, dtype=jnp.bfloat16) for seed in (0, 1))
    y, pull = jax.vjp(lambda x: layers.lrn(x, part), x)
    wide, pull_wide = jax.vjp(lambda x: layers.lrn(x, part), x.astype(jnp.float32))
    assert y.dtype == pull(g)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))
    np.testing.assert_array_equal(pull(g)[0], pull_wide(g.astype(jnp.float32))[0].astype(jnp.bfloat16))


def test_pooling_is_exact():
    x = normal(2, 7, 7, 3, dtype=jnp.bfloat16)
    y = layers.max_pool(x, MaxPool())
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, layers.max_pool(x.astype(jnp.float32), MaxPool()))


@pytest.mark.parametrize("mesh", [pytest.param((1, 1), marks=pytest.mark.evidence), (2, 2)])
def test_bfloat16_gradients_are_close_to_float32(narrow, mesh):
    table, placement = narrow(), Columns.over(*mesh)
    parameters = random_parameters(shapes(table), dtype=np.float32)
    images, labels = random_examples(table, 8, dtype=np.float32)
    images = images.transpose(3, 1, 2, 0) / 100
    masks = dropout_masks(table, jax.random.key(0), 8)
    run = jax.jit(lambda images: loss_and_gradients(table, placement, parameters, images, labels, masks))
    ((wide, _), exact), ((loss, error), gradients) = run(images), run(jnp.asarray(images, jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((loss, error, gradients))} == {jnp.dtype("float32")}
    assert loss == pytest.approx(float(wide), rel=0.02)
    assert loss != wide
    for leaf, truth in zip(jax.tree.leaves(gradients["fc8"]), jax.tree.leaves(exact["fc8"]), strict=True):
        assert np.linalg.norm(leaf - truth) < 0.05 * np.linalg.norm(truth)


def test_the_gradient_of_a_bias_is_summed_in_32_bits(narrow):
    """bfloat16 cannot count beyond 256: a sum of ones over all pixels of all images would stop at 256."""
    table, placement = narrow(image=(32, 32, 3)), Columns.over()
    alone = dataclasses.replace(table, layers=(dataclasses.replace(table.layers[0], after=()),))
    kernel = jnp.zeros((2, 3, 3, 5, 5))
    images = jnp.ones((3, 32, 32, 4), jnp.bfloat16)

    def total(bias):
        def run(parameters, images):
            return columns.mean_over_data(placement.forward(alone, parameters, images).astype(jnp.float32).sum())[None]

        specs = (placement.parameter_specs(alone), columns.BATCH_LAST)
        run = placement.per_device(run, specs, columns.COLUMNS)
        return run({"conv1": {"kernel": kernel, "bias": bias}}, images).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(jnp.zeros((2, 3))), np.full((2, 3), 32 * 32 * 4.0))


def test_logits_have_32_bits(narrow):
    table = narrow()
    parameters = random_parameters(shapes(table), dtype=np.float32)
    images = jnp.asarray(random_examples(table, 4)[0], jnp.bfloat16)
    assert logits(table, Columns.over(), parameters, images).dtype == jnp.float32


def test_products_are_taken_in_16_bits_and_the_state_keeps_32():
    trained = trainer(precision="bfloat16")
    state = jax.eval_shape(trained.initial_state)
    split = OnDevice(jax.ShapeDtypeStruct((50, 32, 32, 3), np.uint8), jax.ShapeDtypeStruct((50,), np.int32))
    indices = jax.ShapeDtypeStruct((32,), np.int32)
    after, _ = jax.eval_shape(trained.step(), state, split, indices, np.uint32(0))
    floats = {leaf.dtype for leaf in jax.tree.leaves((after.parameters, after.optimizer)) if leaf.ndim}
    assert floats == {jnp.dtype("float32")}
    text = str(trained.step().trace(state, split, indices, np.uint32(0)).jaxpr)
    products = re.findall(r"= (?:dot_general|conv_general_dilated)\[.*?\] (\w+) (\w+)", text, re.DOTALL)
    types = dict(re.findall(r"(\w+):(\w+)\[", text))
    assert len(products) > 20
    assert {types[operand] for pair in products for operand in pair} == {"bf16"}


@pytest.mark.evidence
def test_a_network_learns_as_well(learned, tmp_path, compile_cache):
    run = tmp_path / "run"
    assert train(run, train__epochs=3, train__precision="bfloat16") == 0
    assert result(run)["top1_error"] < result(learned)["top1_error"] + 0.05
    first, wide = (line["loss"] for line in (numbers(run)[0], numbers(learned)[0]))
    assert first == pytest.approx(wide, rel=0.01)
    assert first != wide


def test_a_run_does_not_change_its_precision_half_way(learned, capsys):
    assert main(command(learned, train__epochs=4, train__precision="bfloat16")) == 2
    assert "train.precision" in capsys.readouterr().err
