"""Check that damaged checkpoints are reported and skipped for the newest intact one, unless a step was requested."""

import gc
import json
import random
import shutil
import sys
from contextlib import closing

import jax
import numpy as np
import pytest
from running import LEARNING_EPOCHS, STEPS_PER_EPOCH, command, contents, main, numbers, state, train, trainer

from alexnet_jax.errors import Damaged, RunError, UsageError
from alexnet_jax.run.checkpoint import Checkpoints, restore_latest
from alexnet_jax.run.restore import OPTIMIZER, PARAMETERS, best_step, restore_parameters, restore_trees, step_folders
from benchmarks import faults

pytest_plugins = ["running"]

LAST = LEARNING_EPOCHS * STEPS_PER_EPOCH
BEFORE = LAST - STEPS_PER_EPOCH


def same_bits(a, b):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(a)] == [
        np.asarray(x).tobytes() for x in jax.tree.leaves(b)
    ]


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(file, bit):
    data = bytearray(file.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    file.write_bytes(data)


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


DAMAGES = {
    "flipped bit": lambda step: flip(largest_file(step / PARAMETERS), 123_457),
    "truncated": lambda step: largest_file(step / PARAMETERS).write_bytes(b"OCDB" * 100),
    "emptied": lambda step: largest_file(step / PARAMETERS).write_bytes(b""),
    "missing": lambda step: largest_file(step / PARAMETERS).unlink(),
    "no metadata": lambda step: (step / PARAMETERS / "_METADATA").unlink(),
    "foreign JSON": lambda step: (step / PARAMETERS / "_METADATA").write_text("[]"),
    "foreign JSON of arrays": lambda step: (step / PARAMETERS / "array_metadatas" / "process_0").write_text("null"),
    "no parameters": lambda step: shutil.rmtree(step / PARAMETERS),
    "another leaf": lambda step: change(step / PARAMETERS / "_METADATA", '"key": "conv1"', '"key": "conv0"'),
    "another sum": lambda step: change(
        step / "checksums" / "metadata", '["float32", [2, 3], ', '["float32", [2, 3], 1'
    ),
    "no sums": lambda step: shutil.rmtree(step / "checksums"),
    "another error": lambda step: change(step / "metrics" / "metrics", "0.", "0.0"),
    "no error": lambda step: shutil.rmtree(step / "metrics"),
    "no JSON": lambda step: (step / "metrics" / "metrics").write_bytes(b"\xff{"),
    "a stray folder": lambda step: (shutil.rmtree(step), step.mkdir(), (step / "note").write_text("x")),
    "another step's": lambda step: (shutil.rmtree(step), shutil.copytree(step.with_name(str(BEFORE)), step)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_newest_sound_one_restored(copied, learned, capsys, damage):
    step, expected = copied / "checkpoints" / str(LAST), trainer().abstract_state().parameters
    DAMAGES[damage](step)
    before = contents(copied)
    found, parameters = restore_parameters(None, copied, expected)
    assert found.name == str(BEFORE) and same_bits(parameters, state(learned, BEFORE)[0])
    output = capsys.readouterr().out
    assert f"The checkpoint {step} is damaged: " in output and f"{found} is restored instead" in output
    for named in (str(LAST), str(step)):
        with pytest.raises(Damaged, match=rf"(?s)checkpoints/{LAST} is damaged: .*{BEFORE}.*--restore"):
            restore_parameters(named, copied, expected)
    assert contents(copied) == before


def test_a_flipped_bit_is_reported_with_its_leaf(tmp_path):
    tree = {"conv1": {"kernel": jax.numpy.arange(5000.0), "bias": jax.numpy.zeros(2)}}
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, tree, tree)
        checkpoints.wait()
    flip(largest_file(tmp_path / "1" / OPTIMIZER), 8 * 2000)
    here = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
    with pytest.raises(Damaged, match="optimizer: conv1/kernel differs from what was saved|conv1.kernel"):
        restore_trees(tmp_path / "1", {PARAMETERS: here, OPTIMIZER: here})
    restore_trees(tmp_path / "1", {PARAMETERS: here})  # the other tree is intact


def test_many_damaged_arrays_are_one_message(copied, monkeypatch):
    """orbax reads all arrays at once, and Python prints a traceback of each that fails after the first."""
    printed = []

    def hook(found):
        printed.append(repr(found.exc_value))

    monkeypatch.setattr("sys.unraisablehook", hook)
    for file in (copied / "checkpoints" / str(LAST) / PARAMETERS).rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found, _ = restore_parameters(None, copied, trainer().abstract_state().parameters)
    assert sys.unraisablehook is hook
    gc.collect()
    assert found.name == str(BEFORE) and not printed


@pytest.mark.parametrize("defect", [TypeError("a defect"), AttributeError("a defect"), AssertionError("a defect")])
def test_a_defect_while_reading_is_not_damage(copied, monkeypatch, defect):
    def read(*_: object, **__: object):
        raise defect

    before, hook, here = contents(copied), sys.unraisablehook, trainer().abstract_state()
    monkeypatch.setattr("orbax.checkpoint.PyTreeCheckpointer.restore", read)
    with pytest.raises(type(defect), match="a defect"):
        restore_latest(copied / "checkpoints", here.parameters, here.optimizer)
    assert contents(copied) == before and sys.unraisablehook is hook


def test_single_flipped_bits_in_any_file(learned, tmp_path):
    """`python -m benchmarks.faults --kills=0` is the long version."""
    outcomes = faults.flip_bits(learned / "checkpoints" / str(LAST), 40, random.Random(1), tmp_path)
    assert outcomes["silently wrong"] == 0
    assert outcomes["found"] > 20 and sum(outcomes.values()) == 40


def test_training_resumes_from_the_newest_sound_checkpoint(copied, learned, capsys):
    DAMAGES["flipped bit"](copied / "checkpoints" / str(LAST))
    (copied / "result.json").unlink()
    assert train(copied, train__epochs=LEARNING_EPOCHS) == 0
    output = capsys.readouterr().out
    assert f"Continuing at step {BEFORE}" in output
    assert f"checkpoints/{LAST} is damaged: " in output
    assert f"It was moved to {copied}/checkpoints/damaged-{LAST}." in output
    assert same_bits(state(copied), state(learned))
    for kind in ("train", "validation", "test"):
        assert numbers(copied, kind) == numbers(learned, kind)
    assert (copied / "checkpoints" / f"damaged-{LAST}" / PARAMETERS).is_dir()


def test_when_all_are_damaged_nothing_is_changed(copied, capsys):
    for step in step_folders(copied / "checkpoints"):
        DAMAGES["flipped bit"](step)
    (copied / "result.json").unlink()
    before = contents(copied / "checkpoints")
    assert train(copied, train__epochs=LEARNING_EPOCHS) == 1
    message = capsys.readouterr().err
    assert "No checkpoint in" in message and "--overwrite" in message and "Traceback" not in message
    assert all(f"checkpoints/{step} is damaged" in message for step in (LAST, BEFORE))
    assert contents(copied / "checkpoints") == before


def test_another_network_or_optimizer_is_no_damage(copied):
    before = contents(copied)
    for other in (trainer(width=0.125), trainer(rule="original")):
        here = other.abstract_state()
        with pytest.raises(UsageError, match="does not fit this network and optimizer"):
            restore_latest(copied / "checkpoints", here.parameters, here.optimizer)
    assert contents(copied) == before


def test_a_damaged_best_is_an_error(copied, capsys):
    best = copied / "checkpoints" / str(best_step(copied / "checkpoints"))
    DAMAGES["flipped bit"](best)
    assert main(command(copied, mode="eval", restore="best")) == 1
    message = capsys.readouterr().err
    assert f"{best} is damaged" in message and "The folder also has steps" in message and "Traceback" not in message


def test_which_is_best_is_not_guessed(copied):
    DAMAGES["another error"](copied / "checkpoints" / str(BEFORE))
    with pytest.raises(Damaged, match=rf"checkpoints/{BEFORE} is damaged: metrics/metrics says"):
        restore_parameters("best", copied, None)


def test_damage_to_others_does_not_stop_a_run(copied, learned, capsys):
    """orbax reads the metrics of all checkpoints before it saves the first."""
    DAMAGES["no JSON"](copied / "checkpoints" / str(BEFORE))
    with closing(Checkpoints(copied / "checkpoints")) as checkpoints:
        assert BEFORE not in checkpoints.steps() and LAST in checkpoints.steps()
    assert f"moved to {copied}/checkpoints/damaged-{BEFORE}" in capsys.readouterr().out


def test_a_step_damaged_twice_is_moved_aside_twice(copied):
    step = copied / "checkpoints" / str(BEFORE)
    for name in (f"damaged-{BEFORE}", f"damaged-{BEFORE}-2"):
        shutil.copytree(copied / "checkpoints" / str(LAST), step, dirs_exist_ok=True)
        DAMAGES["no JSON"](step)
        Checkpoints(copied / "checkpoints").close()
        assert (copied / "checkpoints" / name).is_dir() and not step.exists()


def test_checkpoints_from_before_there_were_checksums(copied, learned, capsys):
    for step in step_folders(copied / "checkpoints"):
        shutil.rmtree(step / "checksums")
        file = step / "_CHECKPOINT_METADATA"
        known = json.loads(file.read_text())
        del known["item_handlers"]["checksums"]
        file.write_text(json.dumps(known))
    _, parameters = restore_parameters(None, copied, trainer().abstract_state().parameters)
    assert same_bits(parameters, state(learned)[0])
    assert capsys.readouterr().out.count("was written before checkpoints had checksums") == 1
    assert best_step(copied / "checkpoints") == best_step(learned / "checkpoints")


def test_a_lack_of_memory_is_not_damage(copied, monkeypatch):
    def short(*_: object, **__: object):
        raise MemoryError("no room")

    monkeypatch.setattr("orbax.checkpoint.PyTreeCheckpointer.restore", short)
    with pytest.raises(RunError, match="Could not read .*no room.*\n.*enough memory") as raised:
        restore_parameters(None, copied, trainer().abstract_state().parameters)
    assert not isinstance(raised.value, Damaged)


def test_a_save_replaced_by_its_validated_form_is_never_missing(tmp_path):
    tree = {"conv1": {"bias": jax.numpy.ones(3)}}
    with closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, tree, tree)
        checkpoints.wait()
        assert checkpoints.unvalidated(1)
        checkpoints.save(1, tree, tree, 0.25)
        assert not checkpoints.unvalidated(1) and best_step(checkpoints.folder) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    here = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
    for opened in (lambda: restore_latest(tmp_path, here, here), lambda: Checkpoints(tmp_path).close()):
        (tmp_path / "1").rename(tmp_path / "unvalidated-1")  # as if killed before the new checkpoint was complete
        opened()
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
    shutil.copytree(tmp_path / "1", tmp_path / "unvalidated-1")  # as if killed after that
    with closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.steps() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_where_none_is_sound_the_remedy_is_one_that_works(copied, capsys):
    shutil.rmtree(copied / "checkpoints" / str(BEFORE))
    (copied / "result.json").unlink()
    DAMAGES["flipped bit"](copied / "checkpoints" / str(LAST))
    before = contents(copied / "checkpoints")
    assert train(copied, train__epochs=LEARNING_EPOCHS) == 1
    message = capsys.readouterr().err
    assert "No checkpoint in" in message and "start anew with --overwrite" in message and "--restore" not in message
    assert contents(copied / "checkpoints") == before


def test_overwrite_deletes_nothing_if_its_origin_is_damaged(copied, learned, tmp_path, capsys):
    source = shutil.copytree(learned, tmp_path / "source") / "checkpoints" / str(LAST)
    DAMAGES["flipped bit"](source)
    before = contents(copied)
    assert main([*command(copied, restore=source), "--overwrite"]) == 1
    assert str(source) in capsys.readouterr().err
    assert contents(copied) == before
