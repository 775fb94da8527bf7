"""Check that the flax module has the reference's logits and gradients, rejects wrong arguments, and learns."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from flax import nnx
from PIL import Image

import alexnet_jax
import experiments
from alexnet_jax import AlexNet, make_mesh
from alexnet_jax.columns import Columns
from alexnet_jax.data import pipeline
from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.data.images import upright
from alexnet_jax.data.registry import load
from alexnet_jax.data.statistics import Statistics, measure
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluate import Evaluator
from alexnet_jax.experiment import DIGITS, Experiment, Optim, Train
from alexnet_jax.model import abstract, activations, cross_entropy, dropout_masks, initialize, loss_and_gradients
from alexnet_jax.network import networks
from alexnet_jax.network.table import Conv, Dense, Dropout, MaxPool, ReLU, Table, shapes
from alexnet_jax.train import Trainer
from benchmarks import plain

TINY = Table(
    "tiny",
    (4, 6, 3),
    2,
    (
        Conv("conv1", 4, 3, padding=(1, 1), weight_std="he", bias=0.5, after=(ReLU(), MaxPool())),
        Dense("fc2", 16, "gather", weight_std=0.1, after=(ReLU(), Dropout(0.25))),
        Dense("fc3", 5, "sum", weight_std=0.1),
    ),
)
"""A network with every kind of crossing in three layers, which compile quickly."""


def in_64_bits(model, parameters=None):
    """Return the model with the given parameters, or its own, in 64 bits."""
    values = model.parameters if parameters is None else parameters
    places = {
        name: {k: getattr(getattr(model, name), k)[...].sharding for k in layer} for name, layer in values.items()
    }
    values = jax.tree.map(lambda x, place: jax.device_put(np.asarray(x, np.float64), place), values, places)
    nnx.update(model, nnx.State(values))
    return model


@pytest.mark.parametrize("mesh", [(1, 1), (1, 2)], ids=["one device", "two devices"])
def test_at_224_pixels_its_logits_are_the_references(mesh, narrow, float64):
    table = narrow("alexnet", image=(224, 224, 3))
    parameters = reference.random_parameters(shapes(table))
    images, _ = reference.random_examples(table, 2)
    expected = jax.jit(functools.partial(plain.logits, table))(parameters, images)
    structure, state = nnx.split(in_64_bits(AlexNet(table, mesh=make_mesh(*mesh), rngs=nnx.Rngs(0)), parameters))
    found = jax.jit(lambda state, images: nnx.merge(structure, state)(images))(state, images)
    assert found.shape == (2, 10)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
@pytest.mark.parametrize("layer", ["conv3", "fc7"])
def test_activations_of_a_layer_are_the_references(layer, mesh, narrow, float64):
    table = narrow()
    parameters = reference.random_parameters(shapes(table))
    images, _ = reference.random_examples(table, 4)
    cut = dataclasses.replace(table, layers=table.layers[: [s.name for s in table.layers].index(layer) + 1])
    expected = np.asarray(jax.jit(functools.partial(plain.logits, cut))(parameters, images)).reshape(4, -1)
    found = jax.jit(functools.partial(activations, table, Columns.over(*mesh), layer=layer))(parameters, images)
    assert found.shape == (4, {"conv3": 24 * 4 * 4, "fc7": 32}[layer])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_abstract_parameters_are_those_that_are_made(mesh):
    placement = Columns.over(*mesh)
    made, described = initialize(TINY, jax.random.key(0), placement), abstract(TINY, placement)
    assert jax.tree.structure(made) == jax.tree.structure(described)
    for leaf, like in zip(jax.tree.leaves(made), jax.tree.leaves(described), strict=True):
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)


@pytest.mark.parametrize("mesh", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_its_gradients_through_nnx_are_those_of_training(mesh, float64):
    mesh = make_mesh(*mesh)
    model = in_64_bits(AlexNet(TINY, mesh=mesh, rngs=nnx.Rngs(0)))
    images, labels = reference.random_examples(TINY, 4)
    key = jax.random.key(1)

    def loss(model):
        return cross_entropy(model(images, dropout_key=key).T, labels).mean()

    through_nnx = nnx.to_pure_dict(jax.jit(nnx.grad(loss))(model))
    masks = dropout_masks(TINY, key, 4)
    step = jax.jit(functools.partial(loss_and_gradients, TINY, Columns(mesh)))
    (value, _), training = step(model.parameters, images.transpose(3, 1, 2, 0), labels, masks)
    expected = jax.jit(jax.value_and_grad(functools.partial(plain.loss, TINY)))(model.parameters, images, labels, masks)

    np.testing.assert_allclose(value, expected[0], rtol=1e-10)
    assert jax.tree.structure(through_nnx) == jax.tree.structure(training) == jax.tree.structure(expected[1])
    for a, b, c in zip(*map(jax.tree.leaves, (through_nnx, training, expected[1])), strict=True):
        np.testing.assert_allclose(a, c, atol=1e-10 * np.abs(c).max())
        np.testing.assert_allclose(b, c, atol=1e-10 * np.abs(c).max())


def images_of(table, batch, dtype=np.float32):
    return jnp.asarray(reference.random_examples(table, batch)[0], dtype)


def test_ten_lines_in_a_notebook():
    model = AlexNet(TINY, rngs=nnx.Rngs(0))
    images = images_of(TINY, 2)
    out = model(images)
    assert out.shape == (2, 5) and out.dtype == jnp.float32
    expected = plain.logits(TINY, model.parameters, images)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    assert model.conv1.kernel.shape == (2, 2, 3, 3, 3)


def test_the_public_names_are_there():
    assert {"AlexNet", "make_mesh", "ALEXNET", "ALEXNET_CIFAR"} <= set(alexnet_jax.__all__)
    assert all(hasattr(alexnet_jax, name) for name in alexnet_jax.__all__)


def test_split_and_merge_give_the_same_module_back():
    model, images = AlexNet(TINY, mesh=make_mesh(1, 2), rngs=nnx.Rngs(3)), images_of(TINY, 4)
    again = nnx.merge(*nnx.split(model))
    assert again.table == model.table and again.mesh == model.mesh
    jax.tree.map(np.testing.assert_array_equal, again.parameters, model.parameters)
    run = nnx.jit(lambda model, images: model(images))
    np.testing.assert_array_equal(run(again, images), run(model, images))


def test_parameters_are_the_dictionary_that_training_uses():
    key = nnx.Rngs(4).params()
    mesh = make_mesh(1, 2)
    drawn = initialize(TINY, key, Columns(mesh))
    parameters = AlexNet(TINY, mesh=mesh, rngs=nnx.Rngs(4)).parameters
    assert jax.tree.structure(parameters) == jax.tree.structure(drawn)
    jax.tree.map(np.testing.assert_array_equal, parameters, drawn)


def test_a_dropout_key_drops_units_and_none_is_the_test_mode():
    model, images = AlexNet(TINY, rngs=nnx.Rngs(0)), images_of(TINY, 8)
    run = nnx.jit(lambda model, images, key=None: model(images, dropout_key=key))
    first, second = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(run(model, images), run(model, images))
    np.testing.assert_array_equal(run(model, images, first), run(model, images, first))
    assert not np.array_equal(run(model, images, first), run(model, images, second))
    assert not np.array_equal(run(model, images, first), run(model, images))
    masks = dropout_masks(TINY, first, 8)
    np.testing.assert_allclose(
        run(model, images, first), plain.logits(TINY, model.parameters, images, masks), rtol=1e-3, atol=1e-3
    )


def test_images_that_do_not_fit_are_refused_with_both_shapes():
    model = AlexNet(TINY, rngs=nnx.Rngs(0))
    for shape in [(2, 6, 4, 3), (2, 3, 4, 6), (4, 6, 3), (2, 4, 6, 1)]:
        with pytest.raises(UsageError, match=r"expects \[batch, 4, 6, 3\]") as problem:
            model(jnp.zeros(shape))
        assert str(shape) in str(problem.value)


def test_raw_pixels_are_refused():
    with pytest.raises(UsageError, match="images are uint8; expected floating point. Subtract the mean first."):
        AlexNet(TINY, rngs=nnx.Rngs(0))(jnp.zeros((2, 4, 6, 3), jnp.uint8))


def test_a_batch_that_does_not_divide_is_refused():
    model = AlexNet(TINY, mesh=make_mesh(2, 1), rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="A batch of 127 images does not divide over 2 data-parallel devices"):
        model(images_of(TINY, 127))
    assert AlexNet(TINY, mesh=make_mesh(1, 2), rngs=nnx.Rngs(0))(images_of(TINY, 1)).shape == (1, 5)


def test_columns_that_do_not_divide_are_refused():
    one = dataclasses.replace(TINY, columns=1)
    with pytest.raises(UsageError, match="1 column does not divide over 2 devices.*column=1"):
        AlexNet(one, mesh=make_mesh(1, 2), rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="2 columns does not divide over 4 devices.*column=1 or 2"):
        initialize(TINY, jax.random.key(0), Columns.over(1, 4))


def test_its_state_is_parameters_and_the_dropout_stream():
    leaves = nnx.to_flat_state(nnx.state(AlexNet(TINY, rngs=nnx.Rngs(0))))
    others = {path[0] for path, leaf in leaves if not isinstance(leaf, nnx.Param)}
    assert len(nnx.to_flat_state(nnx.state(AlexNet(TINY, rngs=nnx.Rngs(0)), nnx.Param))) == 6 and others == {"rngs"}


def test_train_and_eval_switch_dropout_as_in_every_nnx_module():
    model, images = AlexNet(TINY, rngs=nnx.Rngs(0, dropout=1)), images_of(TINY, 8)
    run = nnx.jit(lambda model, images, key=None: model(images, dropout_key=key))
    new = run(model, images)
    model.train()
    first, second = run(model, images), run(model, images)
    assert not np.array_equal(first, new) and not np.array_equal(first, second)
    key = jax.random.key(1)
    with_key = run(model, images, key)
    model.eval()
    np.testing.assert_array_equal(run(model, images), new)
    np.testing.assert_array_equal(run(model, images, key), with_key)


def test_the_dropout_stream_leaves_the_others_as_they_are(narrow):
    table = narrow()
    rngs, alone = nnx.Rngs(0), nnx.Rngs(0)
    for _ in range(2):  # the second shows that the first drew from `params` only once
        found = nnx.to_pure_dict(nnx.state(AlexNet(table, rngs=rngs), nnx.Param))
        expected = initialize(table, alone.params(), Columns.over())
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_model_without_a_dropout_stream_cannot_train(narrow):
    table = narrow()
    model = AlexNet(table, rngs=nnx.Rngs(params=0))
    images = jnp.zeros((2, *table.image))
    assert model(images).shape == (2, table.classes)
    model.train()
    with pytest.raises(UsageError, match=r"nnx\.Rngs\(params=0, dropout=1\)"):
        model(images)


def test_the_masks_of_train_repeat_with_the_seed():
    models = [AlexNet(TINY, rngs=nnx.Rngs(0, dropout=seed)) for seed in (1, 1, 2)]
    for model in models:
        model.train()
    first, again, other = (model(images_of(TINY, 8)) for model in models)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# --- predict ---------------------------------------------------------------------------------------------------------

NAMES = ("ant", "bee", "cow", "dog", "elk")


def predictor(mean=(1, 1, 3), **options):
    stats = Statistics(np.full(mean, 100, np.float32), 50.0)
    return AlexNet(TINY, rngs=nnx.Rngs(0), normalization=stats, classes=NAMES, **options)


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("mean", [(1, 1, 3), (6, 10, 3)])
def test_predictions_are_the_references_softmax_of_the_centre(mean):
    model, images = predictor(mean), pixels(3, 6, 10, 3)
    seen = ((images - np.float32(100)) / 50)[:, 1:5, 2:8]
    scores = np.asarray(plain.logits(TINY, model.parameters, seen), np.float64)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = model.predict(images, top=2)
    for one, row in zip(found, shares, strict=True):
        best = np.argsort(-row)[:2]
        assert one.names == tuple(NAMES[i] for i in best)
        np.testing.assert_allclose(one.probabilities, row[best], rtol=1e-4)
    model.train()
    assert model.predict(images, top=2) == found


def test_picture_files_are_read_as_in_an_evaluation(tmp_path):
    model = predictor(side=12)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels(12, 16, 3)).save(tmp_path / name)
    (expected,) = model.predict(upright((tmp_path / "a.png").read_bytes(), 12, "a")[None])
    assert model.predict(tmp_path / "a.png") == model.predict(str(tmp_path / "a.png")) == [expected]
    both = model.predict([tmp_path / "a.png", tmp_path / "b.png"])
    assert [one.names for one in both] == [expected.names] * 2


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (pixels(2, 3, 6, 3), {}, r"uint8 \(2, 3, 6, 3\); expected uint8 \[batch, height, width, 3\], at least 4x6"),
        (pixels(4, 6, 3), {}, r"images are uint8 \(4, 6, 3\)"),
        (pixels(2, 4, 6, 3) / 255, {}, "images are float64"),
        (pixels(2, 4, 6, 3), {"top": 6}, "top=6: expected 1 to 5"),
        ("nowhere.png", {}, "nowhere.png: no such file"),
        ([], {}, "No images to predict"),
    ],
)
def test_images_that_cannot_be_predicted_are_refused(images, options, message):
    with pytest.raises(UsageError, match=message):
        predictor().predict(images, **options)


def test_predicting_needs_normalization_and_class_names():
    stats = Statistics(np.zeros((1, 1, 3), np.float32), 1.0)
    with pytest.raises(UsageError, match="tiny has no normalization. Load a trained network by alexnet_jax.load"):
        AlexNet(TINY, rngs=nnx.Rngs(0), classes=NAMES).predict(pixels(1, 4, 6, 3))
    with pytest.raises(UsageError, match="tiny has no class names"):
        AlexNet(TINY, rngs=nnx.Rngs(0), normalization=stats).predict(pixels(1, 4, 6, 3))
    with pytest.raises(UsageError, match="3 names of classes; tiny has 5 classes"):
        AlexNet(TINY, rngs=nnx.Rngs(0), classes=NAMES[:3])


# --- initial values and the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["paper", "original", "he"])
def test_initial_values_are_those_of_the_table(init, narrow):
    table = narrow(init=init, width=1 / 4, fc_units=256)
    parameters = jax.device_get(initialize(table, jax.random.key(0), Columns.over()))
    for shape in shapes(table):
        layer = parameters[shape.spec.name]
        std = math.sqrt(2 / shape.fan_in) if shape.spec.weight_std == "he" else shape.spec.weight_std
        n = layer["kernel"].size
        assert layer["kernel"].dtype == layer["bias"].dtype == np.float32
        assert abs(layer["kernel"].std() / std - 1) < 5 / math.sqrt(2 * n), shape.spec.name
        assert abs(layer["kernel"].mean()) < 5 * std / math.sqrt(n), shape.spec.name
        np.testing.assert_array_equal(layer["bias"], shape.spec.bias)


def test_he_weights_keep_the_scale_of_activations(narrow):
    """The fan-in of fc8 counts both columns; with half of it, the weights would be 1.4 times too large."""
    table = narrow(init="he", width=1 / 4, fc_units=512)
    kernel = np.asarray(initialize(table, jax.random.key(0), Columns.over())["fc8"]["kernel"])
    assert kernel.std() == pytest.approx(math.sqrt(2 / 512), rel=0.05)


def test_cross_entropy_is_minus_log_probability(float64):
    scores = np.random.default_rng(0).normal(size=(5, 7)) * 30
    labels = np.arange(7, dtype=np.int32) % 5
    shares = np.exp(scores) / np.exp(scores).sum(0)
    np.testing.assert_allclose(cross_entropy(scores, labels), -np.log(shares[labels, range(7)]), rtol=1e-9)
    gradient = jax.grad(lambda s: cross_entropy(s, labels).sum())(scores)
    np.testing.assert_allclose(gradient, shares - np.eye(5)[labels].T, atol=1e-12)


def test_cross_entropy_of_huge_scores_is_finite():
    np.testing.assert_allclose(cross_entropy(jnp.array([[1e4], [0.0]]), jnp.array([1])), [1e4])


# --- learning --------------------------------------------------------------------------------------------------------


def shipped():
    """Return every experiment of the folder, without the sweeps."""
    found = [experiments.find(name) for name in experiments.FILES]
    return [one for one in found if isinstance(one, Experiment)]


def some_digits(n, table):
    """Return n digits, enlarged by repeating pixels, or cropped at the centre, to the image size of a table."""
    split, side = load(DIGITS).train, table.image[0]
    factor, edge = max(1, side // 32), max(0, (32 - side) // 2)
    images = split.images[:n, edge : 32 - edge, edge : 32 - edge].repeat(factor, 1).repeat(factor, 2)
    return MemorySplit(images, split.labels[:n])


def steps_to_know_by_heart(table, optim, scale, *, examples, limit, every, seeds=(0, 1, 2)):
    """Return for each seed the full-batch steps until the error is zero, or None if it is not zero within the limit."""
    data = dataclasses.replace(DIGITS, crop_padding=0, scale=scale)
    optim = dataclasses.replace(optim, warmup=limit / 20, drops=(), schedule="constant")
    experiment = Experiment("by heart", data=data, optim=optim, train=Train(epochs=limit, batch=examples))
    split, placement = some_digits(examples, table), Columns.over()
    stats = measure(split, data)
    trainer = Trainer(experiment, table, placement, stats, 1)
    evaluator = Evaluator(table, placement, stats, train=Train(eval_batch=examples))
    placed, whole = pipeline.put(split, placement), pipeline.MemoryFeed(split, placement)
    step, indices, needed = trainer.step(), np.arange(examples, dtype=np.int32), []
    for seed in seeds:
        state = trainer.initial_state(initialize(table, jax.random.key(seed), placement))
        needed.append(None)
        for done in range(1, limit + 1):
            state, _ = step(state, placed, indices, np.uint32(0))
            if done % every == 0 and evaluator(state.parameters, whole).top1_error == 0:
                needed[-1] = done
                break
    return needed


INITS = sorted({e.network.init for e in shipped() if e.network.name == "alexnet_cifar"})


@pytest.mark.evidence
@pytest.mark.parametrize("init", INITS)
def test_a_narrow_network_memorizes_64_digits(init, narrow):
    """Detect a loss that stays at ln(classes) because of initial weights, biases or a missing gradient."""
    optim = next(e.optim for e in shipped() if e.network.init == init)
    table = narrow(init=init, image=(32, 32, 3), fc_units=128)
    needed = steps_to_know_by_heart(table, optim, "std", examples=64, limit=150, every=15, seeds=(0,))
    assert None not in needed, needed


@pytest.mark.evidence
@pytest.mark.parametrize("experiment", shipped(), ids=lambda experiment: experiment.name)
def test_shipped_networks_memorize_128_images(experiment):
    table = networks.build(experiment.network, 10)
    needed = steps_to_know_by_heart(table, experiment.optim, experiment.data.scale, examples=128, limit=300, every=10)
    assert None not in needed, needed


@pytest.mark.evidence
@pytest.mark.parametrize(
    ("table", "rule"),
    [
        (networks.ALEXNET, "paper"),
        (networks.ALEXNET_TUTORIAL, "paper"),
        (networks.ALEXNET_ORIGINAL, "original"),
        (networks.ALEXNET_ONE_COLUMN, "paper"),
        (networks.ALEXNET_CIFAR, "paper"),
    ],
)
def test_full_size_networks_memorize_128_images(table, rule):
    needed = steps_to_know_by_heart(table, Optim(rule=rule), "none", examples=128, limit=1000, every=20)
    assert None not in needed, needed


def test_the_mesh_does_not_change_what_is_learned_in_five_steps():
    """The first losses agree to 1e-5; later ones may differ more, since sums are rounded differently."""
    losses = []
    for mesh in (make_mesh(1, 1), make_mesh(1, 2), make_mesh(2, 2)):
        rule = optax.sgd(0.01)
        parameters = initialize(TINY, jax.random.key(0), Columns(mesh))
        images, labels = reference.random_examples(TINY, 16, dtype=np.float32)
        state, step = rule.init(parameters), jax.jit(functools.partial(loss_and_gradients, TINY, Columns(mesh)))
        losses.append([])
        for number in range(5):
            masks = dropout_masks(TINY, jax.random.fold_in(jax.random.key(1), number), 16)
            (loss, _), gradients = step(parameters, images.transpose(3, 1, 2, 0) / 100, labels, masks)
            updates, state = rule.update(gradients, state)
            parameters = optax.apply_updates(parameters, updates)
            losses[-1].append(float(loss))
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-5)
    assert losses[0][-1] != losses[0][0]
