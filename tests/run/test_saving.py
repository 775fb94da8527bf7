"""Check that failed saves are reported, and that saves leak neither memory nor file handles."""

import gc
import os
import shutil
import subprocess
from contextlib import closing

import jax
import psutil
import pytest
from photographs import SIDE, write_folder
from running import epochs, same_bits, state, train, trainer

from alexnet_jax.columns import Columns
from alexnet_jax.data import pipeline, registry
from alexnet_jax.errors import RunError
from alexnet_jax.evaluate import Evaluator
from alexnet_jax.experiment import Data
from alexnet_jax.run import checkpoint
from alexnet_jax.run.checkpoint import Checkpoints
from alexnet_jax.run.restore import step_folders

pytest_plugins = ["running"]
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # of orbax, after the failure


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a file system of 2 MB, and a function that resizes the file system."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_leaves_earlier_checkpoints_sound(small_disk, twenty_steps, capsys):
    folder, resize = small_disk
    options = {"train__epochs": epochs(20), "train__save_every": 2, "train__keep": 99}
    (folder.parent / "experiment.json").write_bytes((twenty_steps / "experiment.json").read_bytes())
    assert train(folder.parent, **options) == 1
    message = capsys.readouterr().err
    assert f"Could not save a checkpoint in {folder}" in message
    assert "The disk is full: make room. Earlier checkpoints in it are unchanged" in message
    assert "Traceback" not in message and not (folder.parent / "result.json").exists()
    saved = [int(step.name) for step in step_folders(folder)]
    assert saved == list(range(2, 2 * len(saved) + 1, 2)) and 2 < len(saved) < 9
    resize("50m")
    assert train(folder.parent, **options) == 0
    assert f"Continuing at step {saved[-1]}" in capsys.readouterr().out
    assert same_bits(state(folder.parent), state(twenty_steps))
    assert [int(step.name) for step in step_folders(folder)] == list(range(2, 21, 2))
    assert not list(folder.glob("*tmp*"))  # the failed save leaves none


def test_a_save_that_failed_is_told_by_the_next(tmp_path):
    tree = {"conv1": {"bias": jax.numpy.ones(3)}}
    folder = tmp_path / "checkpoints"
    with closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(1, tree, tree)
        checkpoints.wait()
        folder.rename(tmp_path / "moved")
        folder.write_text("in the way")
        with pytest.raises(RunError, match="Could not save a checkpoint.*\n.*folder moved"):
            checkpoints.save(2, tree, tree)
            checkpoints.save(3, tree, tree)
    with closing(Checkpoints(tmp_path / "moved")) as checkpoints:
        assert checkpoints.steps() == [1]


def test_a_checkpoint_is_on_disk_before_an_older_is_deleted(tmp_path, monkeypatch):
    synced, kept, original = [], [], checkpoint.sync_folder

    def sync(folder):
        original(folder)
        kept.append(sorted(step.name for step in step_folders(tmp_path)))
        synced.append(folder.name)

    monkeypatch.setattr(checkpoint, "sync_folder", sync)
    tree = {"conv1": {"bias": jax.numpy.ones(3)}}
    with closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, tree, tree)
            checkpoints.wait()
        assert synced.index("1") < synced.index("2")
        assert kept[synced.index("2")] == ["1", "2"] and checkpoints.steps() == [2]


def test_every_file_and_folder_is_synced(tmp_path, monkeypatch):
    (tmp_path / "step" / "item").mkdir(parents=True)
    (tmp_path / "step" / "item" / "file").write_text("x")
    found, original = set(), os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: found.add(os.readlink(f"/proc/self/fd/{handle}")) or original(handle)
    )
    checkpoint.sync_folder(tmp_path / "step")
    paths = (tmp_path, tmp_path / "step", tmp_path / "step" / "item", tmp_path / "step" / "item" / "file")
    assert found == {str(path) for path in paths}


# --- leaks -----------------------------------------------------------------------------------------------------------


class Watch:
    """Record what this process uses after each round: arrays on devices, open files, threads, bytes of memory."""

    def __init__(self):
        self.process, self.seen = psutil.Process(), []

    def look(self):
        gc.collect()
        process = self.process
        self.seen.append((len(jax.live_arrays()), process.num_fds(), process.num_threads(), process.memory_info().rss))

    def check(self, warm):
        """Assert that nothing grew after `warm` rounds, except up to two handles, two threads and 16 MiB."""
        for kind, allowed in enumerate((0, 2, 2, 16 * 2**20)):
            assert self.seen[-1][kind] <= self.seen[warm][kind] + allowed, self.seen


@pytest.mark.evidence
def test_nothing_grows_over_fifty_evaluations_and_twenty_saves(tmp_path, compile_cache):
    run, watch = trainer(), Watch()
    data = registry.load(run.experiment.data)
    evaluator = Evaluator(run.table, run.placement, run.stats, run.experiment.data, run.experiment.train)
    split, state = pipeline.feed(data.test, run.placement), run.initial_state()
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for number in range(25):
            evaluator(state.parameters, split)
            evaluator(state.parameters, split)
            checkpoints.save(number + 1, state.parameters, state.optimizer)
            checkpoints.wait()
            watch.look()
    watch.check(warm=4)


@pytest.mark.evidence
def test_nothing_grows_when_pictures_are_read_again_and_again(tmp_path):
    """Each evaluation creates a new iterator of grain."""
    placement, watch = Columns.over(), Watch()
    data = Data("folder", dir=str(write_folder(tmp_path, train=3)), side=SIDE, prepared="none")
    test = pipeline.feed(registry.load(data).test, placement, workers=0)
    for _ in range(30):
        for examples, _, _ in test.evaluation(4):
            examples.images.block_until_ready()
        watch.look()
    watch.check(warm=9)
