"""Check that scores count every example once for any batch and mesh, treat ties correctly, and are reproducible."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.columns import Columns
from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.data.pipeline import MemoryFeed
from alexnet_jax.data.statistics import Statistics, measure
from alexnet_jax.errors import RunError
from alexnet_jax.evaluate import Evaluator, average, rank
from alexnet_jax.experiment import Data, Experiment, Optim, Train
from alexnet_jax.model import initialize
from alexnet_jax.network.table import Conv, Dense, Dropout, MaxPool, ReLU, Table
from alexnet_jax.train import Trainer
from benchmarks import plain

TABLE = Table(
    "small",
    (6, 6, 3),
    2,
    (
        Conv("conv1", 8, 3, weight_std="he", after=(ReLU(), MaxPool())),
        Dense("fc2", 16, "gather", weight_std="he", after=(ReLU(), Dropout())),
        Dense("fc3", 10, "sum", weight_std="he"),
    ),
)
EXAMPLES = 700
BATCHES = [64, 128, 333, 700, 10_000]


@pytest.fixture(scope="module")
def split():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (EXAMPLES, *TABLE.image)).astype(np.uint8)
    return MemorySplit(images, generator.integers(0, 10, EXAMPLES).astype(np.int32))


@pytest.fixture(scope="module")
def stats(split):
    return measure(split, Data(scale="std"))


def scores(split, stats, *, batch=128, mesh=(1, 1), parameters=None):
    placement = Columns.over(*mesh)
    own = initialize(TABLE, jax.random.key(0), placement)
    if parameters is not None:
        places = jax.tree.map(lambda leaf: leaf.sharding, own)
        own = jax.device_put(parameters, places)
    return Evaluator(TABLE, placement, stats, train=Train(eval_batch=batch))(own, MemoryFeed(split, placement))


@pytest.fixture(scope="module")
def expected(split, stats):
    """Return (top-1 error, top-5 error, mean loss) from the reference's logits, sorted in NumPy."""
    parameters = jax.device_get(initialize(TABLE, jax.random.key(0), Columns.over()))
    images = (split.images - stats.mean) / np.float32(stats.scale)
    logits = np.asarray(plain.logits(TABLE, parameters, images), np.float64)
    place = [
        np.flatnonzero(np.argsort(-row, kind="stable") == label)[0]
        for row, label in zip(logits, split.labels, strict=True)
    ]
    loss = np.log(np.exp(logits).sum(1)) - logits[range(EXAMPLES), split.labels]
    return np.mean(np.array(place) >= 1), np.mean(np.array(place) >= 5), loss.mean()


@pytest.mark.parametrize("batch", BATCHES)
def test_every_example_counts_once_whatever_the_batch(batch, split, stats, expected):
    found = scores(split, stats, batch=batch)
    assert found.examples == EXAMPLES
    assert (found.top1_error, found.top5_error) == expected[:2]  # exact, as they are numbers of examples
    assert found.loss == pytest.approx(expected[2], rel=1e-5)


@pytest.mark.parametrize("mesh", [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_every_mesh_gives_the_same_scores(mesh, split, stats, expected):
    found = scores(split, stats, batch=333, mesh=mesh)  # which two devices do not divide
    assert found.examples == EXAMPLES
    assert (found.top1_error, found.top5_error) == expected[:2]
    assert found.loss == pytest.approx(expected[2], rel=1e-5)


def test_evaluating_twice_gives_identical_numbers(split, stats):
    placement = Columns.over()
    evaluator, parameters = (
        Evaluator(TABLE, placement, stats, train=Train(eval_batch=128)),
        initialize(TABLE, jax.random.key(0), placement),
    )
    placed = MemoryFeed(split, placement)
    assert evaluator(parameters, placed) == evaluator(parameters, placed)


def changed(values):
    parameters = jax.device_get(initialize(TABLE, jax.random.key(0), Columns.over()))
    return {**parameters, "fc3": {**parameters["fc3"], **values}}


def test_constant_outputs_only_hit_the_first_class(split, stats):
    found = scores(split, stats, parameters=changed({"kernel": np.zeros((2, 10, 8), np.float32)}))
    assert found.top1_error == np.mean(split.labels != 0)
    assert found.top5_error == np.mean(split.labels >= 5)
    assert found.loss == pytest.approx(np.log(10), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_no_score(bad, split, stats):
    with pytest.raises(RunError, match="The mean loss of an evaluation is nan"):
        scores(split, stats, parameters=changed({"bias": np.full(10, bad, np.float32)}))


def test_rank_counts_the_classes_before_the_right_one():
    table = jnp.array([[3.0, 1.0, 2.0, 1.0], [3.0, 1.0, 2.0, 1.0], [3.0, 1.0, 2.0, 1.0], [3.0, 1.0, 2.0, 1.0]]).T
    # Of two classes with equal scores, 1 and 3, the lower is first.
    assert rank(table, jnp.arange(4)).tolist() == [0, 2, 1, 3]


def test_rank_is_the_place_in_a_stable_sort():
    scores = np.random.default_rng(0).integers(0, 4, (10, 200)).astype(np.float32)  # many ties
    labels = np.random.default_rng(1).integers(0, 10, 200).astype(np.int32)
    order = np.argsort(-scores, axis=0, kind="stable")
    expected = [np.flatnonzero(order[:, i] == label)[0] for i, label in enumerate(labels)]
    np.testing.assert_array_equal(rank(scores, labels), expected)


def test_the_mean_and_scale_of_the_training_split_are_applied(split, stats):
    shifted = dataclasses.replace(split, images=(split.images // 2 + 100).astype(np.uint8))
    own = Statistics(stats.mean / 2 + 100, stats.scale / 2)
    plain, moved = scores(split, stats), scores(shifted, own)
    assert moved.loss == pytest.approx(plain.loss, rel=0.02)  # up to the rounding of // 2
    assert scores(shifted, stats).loss != pytest.approx(plain.loss, rel=0.02)


# --- compilation -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_tracing():
    """Return a function that forbids or allows jax to trace programs."""
    yield lambda forbidden: jax.config.update("jax_no_tracing", forbidden)
    jax.config.update("jax_no_tracing", False)


def test_a_second_epoch_and_evaluation_compile_nothing(split, stats, no_tracing):
    placement = Columns.over(2, 2)
    options = Experiment(
        "compile", optim=Optim(drops=(1,)), data=Data(crop_padding=1), train=Train(epochs=2, batch=128)
    )
    per_epoch = EXAMPLES // 128
    trainer = Trainer(options, TABLE, placement, stats, per_epoch)
    evaluator, feed = Evaluator(TABLE, placement, stats, train=Train(eval_batch=128)), MemoryFeed(split, placement)
    step, state = trainer.step(), trainer.initial_state()
    for number, (examples, indices) in enumerate(feed.training(0, 2 * per_epoch, 128, 0)):
        state, result = step(state, examples, indices, np.uint32(number))
        if (number + 1) % per_epoch == 0:
            evaluator(state.parameters, feed)  # five batches and 60 more examples
            no_tracing(True)
    assert np.isfinite(result.loss) and int(state.step) == 10


# --- several views ---------------------------------------------------------------------------------------------------


def test_softmax_is_averaged_and_not_logits():
    """For two classes and three views with logits [9, 0], [0, 3], [0, 3], averaged logits would predict class 0."""
    three = [np.array([[9.0], [0.0]]), np.array([[0.0], [3.0]]), np.array([[0.0], [3.0]])]
    found = np.asarray(average(three))[:, 0]
    softmax = [np.exp(view[:, 0]) / np.exp(view).sum() for view in three]
    np.testing.assert_allclose(np.exp(found), np.mean(softmax, 0), rtol=1e-6)
    assert found.argmax() == 1
