"""Check what a dry run prints about a training, and that it writes no files."""

from types import SimpleNamespace

import jax
import pytest
from photographs import write_imagenet
from running import STEPS_PER_EPOCH, command, contents, epochs, main, trainer

from alexnet_jax import dry_run
from alexnet_jax.data import order, registry

pytest_plugins = ["running"]


def dry(workdir, **options):
    return main([*command(workdir, **options), "--dry_run"])


def test_it_prints_everything_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert dry(tmp_path / "run", train__epochs=3, mesh__column=2) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'run'}, a new run" in shown
    assert "conv3" in shown and "16 maps" not in shown and "8 maps of 8x8" in shown
    assert f"Devices: 2 of {len(jax.devices())}, mesh data 1, column 2 (cpu)" in shown
    assert "1,257 images to train on, 180 held out, 360 to test with" in shown
    assert "Memory of each device: " in shown and "checkpoints, " in shown and "TOO LITTLE" not in shown
    assert f"Time: {3 * STEPS_PER_EPOCH:,} steps of 32 images" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_figures_are_those_of_the_compiled_step():
    on = trainer()
    training, _ = order.hold_out(registry.load(on.experiment.data), 180)
    measured = dry_run.measure(on, training, True)
    numbers = sum(leaf.size for layer in on.abstract_state().parameters.values() for leaf in layer.values())
    assert measured.state == 4 * (2 * numbers + 1)  # parameters, velocities, the count of steps
    assert measured.memory > measured.state + training.images.nbytes  # the device stores the whole data set
    assert measured.step > 0 == measured.reading


def test_hours_follow_from_steps_and_evaluations():
    on = SimpleNamespace(
        experiment=SimpleNamespace(
            train=SimpleNamespace(epochs=10, batch=100), data=SimpleNamespace(views=10, workers=None)
        ),
        placement=trainer().placement,
        total_steps=1000,
    )
    said = dry_run.duration(dry_run.Measured(60.0, 2.0, 1.0, 0, 0), on, 0, validation=500, test=1000)
    # 1,000 x 3 s, and 10 x 500 images and 1,000 of ten views at a third of 0.02 s: 3,100 s
    assert "1,000 steps of 100 images, 2 s each, 1 s to read" in said and "about 52 minutes" in said


def test_an_existing_run_is_recognized(learned, copied, capsys):
    before = contents(copied)
    assert dry(copied, train__epochs=3) == 0
    assert "a finished run" in capsys.readouterr().out
    assert dry(copied, train__epochs=4) == 0
    shown = capsys.readouterr().out
    assert f"continued at step {3 * STEPS_PER_EPOCH}" in shown and f"Time: {STEPS_PER_EPOCH} steps of" in shown
    (copied / "result.json").unlink()
    assert dry(copied, train__epochs=3) == 0
    assert f"continued at step {3 * STEPS_PER_EPOCH}" in capsys.readouterr().out
    del before[copied / "result.json"]
    assert contents(copied) == before


def test_it_refuses_what_a_training_would_refuse(copied, tmp_path, capsys):
    assert dry(copied, optim__learning_rate=0.5) == 2
    assert "--optim.learning_rate" in capsys.readouterr().err
    assert dry(tmp_path, restore=tmp_path / "nowhere") == 2
    assert main([*command(copied), "--dry_run", "--mode=eval"]) == 2
    assert "expected only with --mode=train" in capsys.readouterr().err


def test_a_full_disk_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    assert dry(tmp_path / "run", train__epochs=epochs(5)) == 0
    assert "TOO LITTLE, choose another --workdir" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_pictures_are_read_where_they_exist(tmp_path, there, capsys):
    if there:
        write_imagenet(tmp_path)
    options = {
        "exp": "alexnet_imagenet_debug",
        "data__dir": tmp_path,
        "data__side": 40,
        "data__crop": 32,
        "data__views": 1,
        "data__validation": 4,
        "network__name": "alexnet_cifar",
        "network__dropout": 0.5,
        "train__batch": 8,
    }
    assert dry(tmp_path / "run", **options) == 0
    shown = capsys.readouterr().out
    assert ("to read its pictures" in shown) == there
    assert ("ImageNet is not prepared in" in shown) != there
    assert ("1,281,163 images to train on" in shown) != there
    assert not (tmp_path / "run").exists()
