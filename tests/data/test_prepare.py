"""Check the files of `--mode=prepare`, that it resumes after a stop, and that it detects all damage."""

import json
import shutil

import numpy as np
import photographs
import pytest
from photographs import KINDS, SIDE, TEST, TRAIN, photograph, write_folder, write_imagenet

import launch
from alexnet_jax.data import prepare, prepared_sets, registry
from alexnet_jax.data.images import decode, encode, square
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data

own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Run the tasks of the worker processes in this process, where the tests can observe them and they are faster."""

    def each(task, folder, parts, workers, title):
        return ((part, task(folder, part)) for part in parts)

    monkeypatch.setattr(prepare, "each_part", each)


def command(root, **options):
    named = {
        "exp": "alexnet_imagenet_debug",
        "mode": "prepare",
        "data.side": SIDE,
        "data.crop": 32,
        "data.dir": root,
    } | options
    return [f"--{name.replace('__', '.')}={value}" for name, value in named.items()]


def run(root, **options):
    return launch.main(command(root, **options))


def stored(pixels):
    return decode(encode(pixels), "it")


@pytest.mark.parametrize("kind", ["imagenet2012", "folder"])
def test_prepared_pictures_are_found_and_are_small_jpegs(tmp_path, kind, capsys):
    (write_imagenet if kind == "imagenet2012" else write_folder)(tmp_path / "data")
    data = Data(kind, dir=str(tmp_path / "data"), side=SIDE)
    plain = registry.load(data)
    assert run(tmp_path / "data", data__name=kind) == 0
    assert f"{TRAIN + TEST} pictures of 40x40" in capsys.readouterr().out
    found = registry.load(data)
    assert found.title == f"{plain.title}, prepared at 40x40" and found.classes == KINDS
    assert found.fingerprint != plain.fingerprint
    for ours, theirs in ((found.train, plain.train), (found.test, plain.test)):
        assert len(ours) == len(theirs)
        for index in range(len(theirs)):
            np.testing.assert_array_equal(ours[index][0], stored(theirs[index][0]))
            assert ours[index][1] == theirs[index][1]
    assert run(tmp_path / "data", data__name=kind) == 0
    assert "is complete" in capsys.readouterr().out


def test_prepared_pictures_need_their_source_no_more(tmp_path):
    write_imagenet(tmp_path / "data")
    assert run(tmp_path / "data", data__prepared=tmp_path / "small") == 0
    shutil.rmtree(tmp_path / "data")
    found = registry.load(Data("imagenet2012", side=SIDE, prepared=str(tmp_path / "small")))
    np.testing.assert_array_equal(found.train[7][0], stored(square(photograph(7), SIDE, "it")))


def test_original_pictures_can_be_requested_once_prepared(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_imagenet(tmp_path / "data")
    raw = registry.load(Data("imagenet2012", dir=str(tmp_path / "data"), side=SIDE))
    assert run(tmp_path / "data") == 0
    usual, asked = (
        registry.load(Data("imagenet2012", dir=str(tmp_path / "data"), side=SIDE, prepared=name))
        for name in (None, "none")
    )
    assert asked.fingerprint == raw.fingerprint != usual.fingerprint
    assert run(tmp_path / "data", data__prepared="none") == 2
    assert "--data.prepared=none: expected a folder" in capsys.readouterr().err


def test_a_folder_that_was_prepared_needs_its_source_no_more(tmp_path, capsys):
    write_folder(tmp_path / "data")
    assert run(tmp_path / "data", data__name="folder", data__prepared=tmp_path / "small") == 0
    shutil.rmtree(tmp_path / "data")
    options = [f"--data.prepared={tmp_path / 'small'}", "--data.name=folder", f"--data.side={SIDE}", "--data.crop=32"]
    capsys.readouterr()
    assert (
        launch.main(["--exp=alexnet_imagenet_debug", "--network.name=alexnet_cifar", "--mode=summary", *options]) == 0
    )
    assert "fc8" in capsys.readouterr().out
    assert (
        launch.main(["--exp=alexnet_imagenet_debug", "--mode=summary", *options[1:], f"--data.prepared={tmp_path}"])
        == 2
    )
    assert "no prepared pictures in this folder" in capsys.readouterr().err


def test_a_file_that_is_missing_is_made_again(tmp_path, capsys):
    write_imagenet(tmp_path / "data")
    small = tmp_path / "small"
    assert run(tmp_path / "data", data__prepared=small) == 0
    manifest = (small / prepared_sets.MANIFEST).read_text()
    next(small.glob("train*")).unlink()
    with pytest.raises(RunError, match="Write it again with --mode=prepare"):
        registry.load(Data("imagenet2012", side=SIDE, prepared=str(small)))
    capsys.readouterr()
    assert run(tmp_path / "data", data__prepared=small) == 0
    assert "3 of 4 files are complete" in capsys.readouterr().out
    assert (small / prepared_sets.MANIFEST).read_text() == manifest


def test_prepared_pictures_of_other_data_are_not_taken_for_these(tmp_path, capsys):
    write_folder(tmp_path / "animals")
    write_imagenet(tmp_path / "data")
    assert run(tmp_path / "animals", data__name="folder", data__prepared=tmp_path / "small") == 0
    assert run(tmp_path / "data", data__prepared=tmp_path / "small") == 2
    assert "holds another preparation: animals" in capsys.readouterr().err
    with pytest.raises(UsageError, match="not ImageNet"):
        registry.load(Data("imagenet2012", side=SIDE, prepared=str(tmp_path / "small")))


def test_a_stopped_preparation_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("alexnet_jax.data.records.PART", 4)
    write_folder(tmp_path / "data")
    options = {"data__name": "folder"}
    assert run(tmp_path / "data", data__prepared=tmp_path / "whole", **options) == 0
    write, done = prepare.write_part, []

    def dies_after_three(folder, part):
        if len(done) == 3:
            (folder / f".{part.file}.123.part").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(part.file)
        return write(folder, part)

    monkeypatch.setattr(prepare, "write_part", dies_after_three)
    assert run(tmp_path / "data", data__prepared=tmp_path / "stopped", **options) == 130
    with (tmp_path / "stopped" / prepare.JOURNAL).open("a") as journal:
        journal.write('["train.array_record-0')  # as if the process died while writing this line
    again = []
    monkeypatch.setattr(prepare, "write_part", lambda folder, part: again.append(part.file) or write(folder, part))
    assert run(tmp_path / "data", data__prepared=tmp_path / "stopped", **options) == 0
    assert len(done) == 3 and not set(done) & set(again) and len(again) == 9 - 3
    texts = [(tmp_path / name / prepared_sets.MANIFEST).read_text() for name in ("whole", "stopped")]
    assert texts[0] == texts[1]
    assert not list((tmp_path / "stopped").glob(".*.part"))


def test_damaged_pictures_are_all_named_and_the_rest_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("alexnet_jax.data.records.PART", 4)
    root = write_folder(tmp_path / "data")
    broken = [root / "train" / "cat" / "003.jpg", root / "val" / "eel" / "101.jpg"]
    originals = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(b"no picture")
    options = {"data__name": "folder", "data__prepared": tmp_path / "small"}
    assert run(root, **options) == 1
    said = capsys.readouterr().err
    assert all(str(path) in said for path in broken) and "prepare it again with --overwrite" in said
    with pytest.raises(UsageError, match="no prepared pictures in this folder"):
        registry.load(Data("folder", dir=str(root), side=SIDE, prepared=str(tmp_path / "small")))
    for path, original in zip(broken, originals, strict=True):
        path.write_bytes(original)
    assert run(root, **options) == 2  # the sizes show that the pictures have changed
    assert "another preparation" in capsys.readouterr().err
    assert launch.main([*command(root, **options), "--overwrite"]) == 0
    assert len(registry.load(Data("folder", dir=str(root), side=SIDE, prepared=str(tmp_path / "small"))).train) > 0


def test_a_file_that_reads_back_otherwise_is_made_again(tmp_path, monkeypatch, capsys):
    write_imagenet(tmp_path / "data")
    write = prepare.write_part

    def on_a_bad_disk(folder, part):
        answer = write(folder, part)
        if "train" in part.file and part.file.endswith("00000-of-00002"):
            path = folder / part.file
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        return answer

    monkeypatch.setattr(prepare, "write_part", on_a_bad_disk)
    options = {"data__prepared": tmp_path / "small"}
    assert run(tmp_path / "data", **options) == 1
    assert "differed from what was written" in capsys.readouterr().err
    monkeypatch.setattr(prepare, "write_part", write)
    assert run(tmp_path / "data", **options) == 0


def test_folders_that_hold_something_else_are_left_alone(tmp_path, capsys):
    write_imagenet(tmp_path / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "full" / ".download.part").write_text("mine too")
    assert run(tmp_path / "data", data__prepared=tmp_path / "full") == 2
    assert "thesis.tex" in capsys.readouterr().err and (tmp_path / "full" / ".download.part").exists()
    assert run(tmp_path / "data", data__prepared=tmp_path / "small") == 0
    assert run(tmp_path / "data", data__prepared=tmp_path / "small", data__side=64) == 2
    assert "side" in capsys.readouterr().err
    (tmp_path / "small" / prepared_sets.MANIFEST).unlink()
    assert run(tmp_path / "data", data__prepared=tmp_path / "small", data__side=64) == 2
    assert "another preparation" in capsys.readouterr().err


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys):
    write_imagenet(tmp_path / "data")
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    assert run(tmp_path / "data", data__prepared=tmp_path / "small") == 2
    assert "free" in capsys.readouterr().err
    assert not list((tmp_path / "small").glob("*.array_record*"))


def test_data_in_memory_is_not_prepared(capsys):
    assert launch.main(["--exp=alexnet_digits", "--mode=prepare"]) == 2
    assert "only imagenet2012 and folder" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["a missing file", "no JSON", "half a manifest"])
def test_damaged_prepared_data_is_named(tmp_path, damage):
    write_imagenet(tmp_path / "data")
    small = tmp_path / "small"
    assert run(tmp_path / "data", data__prepared=small) == 0
    manifest = small / prepared_sets.MANIFEST
    if damage == "a missing file":
        next(small.glob("train*")).unlink()
    elif damage == "no JSON":
        manifest.write_text("{")
    else:
        manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "files"}))
    with pytest.raises(RunError, match=r"is missing, but|prepared\.json is damaged"):
        registry.load(Data("imagenet2012", side=SIDE, prepared=str(small)))
