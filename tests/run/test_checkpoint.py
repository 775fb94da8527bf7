"""Check which checkpoints are kept and which are rejected, and that they are restored bit for bit on any mesh."""

import shutil
from contextlib import closing

import jax
import numpy as np
import pytest
from running import LEARNING_EPOCHS, STEPS_PER_EPOCH, command, epochs, main, restored, state, train, trainer

from alexnet_jax import columns
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.restore import OPTIMIZER, PARAMETERS, best_step, find_step, restore_tree

pytest_plugins = ["running"]

LAST = LEARNING_EPOCHS * STEPS_PER_EPOCH


def tree(value=1.0):
    return {"conv1": {"kernel": jax.numpy.full((2, 3), value), "bias": jax.numpy.zeros(2)}}


def abstract(tree):
    sharding = columns.Columns.over().sharding(columns.WHOLE)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def equal(a, b):
    """Return whether two trees agree in structure and in every bit."""
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b)
    return all(jax.tree.leaves(same))


# --- kept checkpoints ------------------------------------------------------------------------------------------------


def test_latest_and_best_are_kept(tmp_path):
    with closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        kept = {}
        for step, error in enumerate([0.5, 0.2, 0.4, 0.3, 0.6, None, None], start=1):
            checkpoints.save(step, tree(step), tree(-step), error)
            checkpoints.wait()
            kept[step] = checkpoints.steps()
            assert step in kept[step]
        assert kept == {1: [1], 2: [1, 2], 3: [2, 3], 4: [2, 3, 4], 5: [2, 4, 5], 6: [2, 5, 6], 7: [2, 6, 7]}
        assert best_step(tmp_path) == 2
    with closing(Checkpoints(tmp_path, keep=1)) as checkpoints:  # as in a later process
        assert best_step(tmp_path) == 2
        checkpoints.save(8, tree(), tree(), 0.1)
        checkpoints.wait()
        assert checkpoints.steps() == [8]


def test_of_equally_good_checkpoints_the_latest_is_kept(tmp_path):
    with closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        for step, error in enumerate([0.2, 0.1, 0.1, 0.3], start=1):
            checkpoints.save(step, tree(), tree(), error)
            checkpoints.wait()
        assert checkpoints.steps() == [3, 4]
        assert best_step(tmp_path) == 3


def test_a_step_that_is_there_is_left_as_it_is(tmp_path):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for value in (1.0, 2.0):
            checkpoints.save(3, tree(value), tree(value))
            checkpoints.wait()
        parameters, optimizer = restored(tmp_path / "3", abstract(tree()), abstract(tree()))
    assert equal(parameters, tree(1.0)) and equal(optimizer, tree(1.0))


def test_values_are_those_of_the_moment_of_saving(tmp_path):
    parameters = tree(1.0)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, parameters, tree())
        jax.tree.map(lambda x: x.delete(), parameters)  # as the next step does by donation
        checkpoints.wait()
        assert equal(restored(tmp_path / "1", abstract(tree()), abstract(tree()))[0], tree(1.0))


def test_what_a_killed_save_leaves_is_not_the_latest(copied, capsys):
    (copied / "checkpoints" / "999").mkdir()
    (copied / "checkpoints" / f"{LAST + 2}.orbax-checkpoint-tmp" / PARAMETERS).mkdir(parents=True)
    assert find_step("latest", copied).name == str(LAST)
    assert train(copied, train__epochs=epochs(LAST + 2)) == 0
    assert f"Continuing at step {LAST}" in capsys.readouterr().out
    assert find_step("latest", copied).name == str(LAST + 2)


# --- selection of a checkpoint ---------------------------------------------------------------------------------------


def test_a_checkpoint_is_named_by_word_step_or_path(learned):
    folder = learned / "checkpoints"
    best = find_step("best", learned)
    assert find_step("latest", learned) == folder / str(LAST)
    assert find_step(str(LAST), learned) == folder / str(LAST)
    for path in (learned, folder, folder / str(LAST)):
        assert find_step(str(path), learned / "elsewhere") == folder / str(LAST)
    assert best.parent == folder and (best / PARAMETERS).is_dir()


def test_wrong_step_is_answered_with_the_steps_there_are(learned):
    steps = [int(path.name) for path in (learned / "checkpoints").iterdir()]
    with pytest.raises(UsageError) as refused:
        find_step("7", learned)
    assert "--restore=7" in str(refused.value)
    assert ", ".join(map(str, sorted(steps))) in str(refused.value)


def test_wrong_path_is_told(tmp_path):
    with pytest.raises(UsageError, match="--restore=.*nowhere.*no checkpoint folder"):
        find_step(str(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(UsageError, match="it has none. Expected the folder of a run"):
        find_step(str(tmp_path), tmp_path)


def test_looking_for_a_checkpoint_changes_no_folder(tmp_path):
    (tmp_path / "2024").mkdir()
    with pytest.raises(UsageError):
        find_step(str(tmp_path), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["2024"]


# --- other meshes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", [(1, 1), (2, 1), (1, 2), (2, 2)], ids=lambda mesh: f"{mesh[0]}x{mesh[1]}")
def test_a_checkpoint_of_two_devices_restores_on_any_mesh(two_devices, tmp_path, mesh):
    before = state(two_devices, on=trainer(1, 2))
    there = state(two_devices, on=trainer(*mesh))
    assert equal(there, before)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(there)} == {mesh[0] * mesh[1]}
    with closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        checkpoints.save(1, *there)
        checkpoints.wait()
    assert equal(state(tmp_path, on=trainer(1, 2)), before)


# --- trees that do not fit -------------------------------------------------------------------------------------------


def test_other_width_is_refused_by_the_name_of_the_leaf(learned):
    with pytest.raises(UsageError, match=r"conv1/bias is float32\[2, 3\] in the checkpoint and float32\[2, 6\] in"):
        state(learned, on=trainer(width=0.125))


def test_other_optimizer_is_refused_by_the_name_of_the_leaf(learned):
    with pytest.raises(UsageError, match=rf"{OPTIMIZER} does not fit .*(absent|float32|int32).* in the checkpoint and "):
        state(learned, on=trainer(rule="original"))


@pytest.mark.parametrize("more", ["there", "here"])
def test_one_layer_more_is_refused_by_the_name_of_the_leaf(tmp_path, more):
    small, large = tree(), tree() | {"fc9": {"bias": jax.numpy.ones(3)}}
    saved, expected = (large, small) if more == "there" else (small, large)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, saved, tree())
        checkpoints.wait()
    with pytest.raises(UsageError, match="fc9/bias is (absent in the checkpoint and fl|float32.* in the checkpoint and absent)"):
        restore_tree(tmp_path / "1", PARAMETERS, abstract(expected))


def test_other_type_is_refused_by_the_name_of_the_leaf(tmp_path):
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, tree(), tree())
        checkpoints.wait()
    half = jax.tree.map(lambda x: x.astype("bfloat16"), tree())
    with pytest.raises(UsageError, match="conv1/bias is float32.* in the checkpoint and bfloat16"):
        restore_tree(tmp_path / "1", PARAMETERS, abstract(half))


def test_a_network_of_other_width_cannot_be_evaluated(learned, capsys):
    assert main([*command(learned, mode="eval", network__width=0.125)]) == 2
    message = capsys.readouterr().err
    assert "conv1/bias" in message and "Traceback" not in message


# --- failed saves ----------------------------------------------------------------------------------------------------


def test_failed_save_is_an_error(tmp_path):
    with closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        checkpoints.save(1, tree(), tree())
        checkpoints.wait()
        shutil.rmtree(tmp_path / "checkpoints")
        (tmp_path / "checkpoints").write_text("in the way")
        with pytest.raises(RunError, match="Could not save a checkpoint.*\n.*folder moved"):
            checkpoints.save(2, tree(), tree())
            checkpoints.wait()


def test_evaluating_needs_no_data_to_train_on(learned, capsys):
    assert main(command(learned, mode="eval")) == 0
    before = capsys.readouterr().out
    assert main(command(learned, mode="eval", data__validation=5000, train__batch=4096)) == 0  # of 1,437 images
    after = capsys.readouterr().out
    line = next(line for line in before.splitlines() if line.startswith("Test error: "))
    assert line in after.splitlines()
    assert "--data.validation=5000 (180 in the run), --train.batch=4096 (32 in the run)" in after
