"""Folders of classes: what each folder means, what counts as a picture, and that nothing is dropped in silence."""

import shutil

import numpy as np
import photographs
import pytest
import tfds_files
from photographs import KINDS, SIDE, photograph, write_folder
from running import main

from alexnet_jax.data import copies, picture_files, registry
from alexnet_jax.data.images import square
from alexnet_jax.data.order import hold_out
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Data

own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)


def load(root):
    """Return (data set, printed notes)."""
    lines = []
    return registry.load(Data("folder", dir=str(root), side=SIDE), log=lines.append), lines


def write(folder, first, count=4, kinds=KINDS, suffix=".jpg"):
    for number in range(first, first + count):
        path = folder / kinds[number % len(kinds)] / f"{number:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(number))


# --- what a folder means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "Testing", "val", "Valid", "validation", "dev"])
def test_names_of_splits_in_any_case(train, test, tmp_path):
    write(tmp_path / train, 0, 9)
    write(tmp_path / test, 100, 3)
    data, notes = load(tmp_path)
    assert (data.classes, len(data.train), len(data.test), data.validation) == (KINDS, 9, 3, 0)
    assert notes[0] == (
        f"{train}/: 3 classes, 9 pictures, used for training; {test}/: 3 classes, 3 pictures, used for the test."
    )
    assert ("there is no test/" in " ".join(notes)) == (test.lower() not in ("test", "testing"))


def test_a_validation_folder_is_the_validation_split(tmp_path):
    write(tmp_path / "train", 0, 9)
    write(tmp_path / "valid", 50, 5)
    write(tmp_path / "test", 100, 3)
    data, notes = load(tmp_path)
    training, held = hold_out(data, 5000)
    assert (len(training), len(held), len(data.test)) == (9, 5, 3)
    found = {held[i][0].tobytes() for i in range(5)}
    assert found == {square(photograph(number), SIDE, "it").tobytes() for number in range(50, 55)}
    assert "valid/: 3 classes, 5 pictures, used for validation" in notes[0] and "5 of validation" in data.title


def test_a_validation_folder_stays_one_when_prepared(tmp_path, capsys):
    for name, first in (("train", 0), ("val", 50), ("test", 100)):
        write(tmp_path / "set" / name, first, 6)
    options = [f"--{k}={v}" for k, v in photographs.OPTIONS.items() if k not in ("data.validation",)]
    assert main([*options, f"--data.dir={tmp_path / 'set'}", "--mode=prepare"]) == 0
    assert "val/: 3 classes, 6 pictures, used for validation" in capsys.readouterr().out
    data, _ = load(tmp_path / "set")
    assert "prepared at" in data.title and (len(data.train), data.validation) == (12, 6)


def test_train_is_a_class_next_to_other_vehicles(tmp_path):
    write(tmp_path, 0, 9, ("bus", "car", "train"))
    assert load(tmp_path)[0].classes == ("bus", "car", "train")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "Training/cat"), "Training/ and train/ both stand for the train split"),
        (("train/cat", "train/dog", "val/cat", "dev/cat"), "dev/ and val/ both stand for the validation split"),
        (("test/cat", "test/dog"), "expected train/ next to test/"),
        (("cat", "dog", "test"), "expected train/ next to test/. If that is a class, rename it"),
        (("train", "test"), "test/ stands for the test split, but it contains no folder for each class"),
        (("train/cat", "train/dog", "test"), "test/ stands for the test split, but it contains no folder"),
    ],
)
def test_what_can_be_understood_in_two_ways_is_an_error(folders, message, tmp_path):
    for number, folder in enumerate(folders):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{number}.jpg").write_bytes(photograph(number))
    with pytest.raises(UsageError) as raised:
        load(tmp_path)
    assert message in str(raised.value)


# --- what is not used ------------------------------------------------------------------------------------------------


def test_everything_that_is_not_used_is_named(tmp_path):
    write_folder(tmp_path)
    write(tmp_path / "extra", 200)
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "train" / "loose.jpg").write_bytes(photograph(1))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("")
    (tmp_path / "val" / "dog" / "phone.heic").write_bytes(b"")
    write(tmp_path / "train" / "cat" / ".ipynb_checkpoints", 300)
    notes = " ".join(load(tmp_path)[1])
    for sentence in (
        "Not used: extra/.",
        "2 files in no folder of a class, such as train/loose.jpg: not used.",
        "2 files skipped, not in a format that Pillow reads: 1 .heic (val/dog/phone.heic), 1 .txt (train/cat/notes.txt).",
        "1 hidden folder skipped, such as train/cat/.ipynb_checkpoints.",
    ):
        assert sentence in notes


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle", ".cache/deeper"])
def test_hidden_and_derived_folders_hold_no_pictures(name, tmp_path):
    write_folder(tmp_path)
    before = load(tmp_path)[0]
    for folder in ("", "train", "train/cat", "val/dog"):
        write(tmp_path / folder / name, 300)
    after, notes = load(tmp_path)
    assert after.fingerprint == before.fingerprint and after.classes == before.classes
    assert "4 hidden folders skipped" in " ".join(notes)


def test_pictures_are_known_by_pillows_own_registry(tmp_path):
    names = ["a.jfif", "b.JPE", "c.webp", "d.tga", "e.ico", "f.qoi", "g.Jp2"]
    for name in [*names, "h.pdf", "i.h5", "j.mpg", "k", "l.eps", "m.wmf"]:
        (tmp_path / name).write_bytes(b"")
    found = picture_files.find(tmp_path)
    assert [path.name for path in found.pictures] == names
    assert [path.name for path in found.skipped] == ["h.pdf", "i.h5", "j.mpg", "k", "l.eps", "m.wmf"]


@pytest.mark.parametrize("name", ["#1.png", "@1.png", "~x.png", "$5.png"])
def test_odd_names_are_pictures_and_classes(name, tmp_path):
    write(tmp_path / "$5 notes", 0, 2, ("inner",))
    write(tmp_path / "#hashtag", 5, 2, ("inner",))
    (tmp_path / "#hashtag" / name).write_bytes(photograph(9))
    data, notes = load(tmp_path)
    assert data.classes == ("#hashtag", "$5 notes") and "5 pictures" in notes[0]


def test_broken_links_are_reported(tmp_path):
    write_folder(tmp_path)
    before = load(tmp_path)[0].fingerprint
    (tmp_path / "train" / "cat" / "broken.png").symlink_to(tmp_path / "nowhere")
    data, notes = load(tmp_path)
    assert data.fingerprint == before and "1 broken link skipped, such as train/cat/broken.png." in notes


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def walk(folder, onerror, **_):
        onerror(PermissionError(13, "Permission denied", f"{folder}/secret"))

    monkeypatch.setattr(picture_files.os, "walk", walk)
    with pytest.raises(UsageError, match="secret cannot be read: Permission denied"):
        picture_files.find(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere", 0, 3)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    assert len(picture_files.find(tmp_path / "set").pictures) == 3


def test_pictures_of_a_folder_are_found_below_it_in_order(tmp_path):
    for name in ("b/2.JPEG", "b/1.png", "a.jpg", "b/notes.txt", ".hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = picture_files.find(tmp_path).pictures
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.jpg", "b/1.png", "b/2.JPEG"]


# --- the same picture twice ------------------------------------------------------------------------------------------


def test_copies_in_the_test_split_are_reported(tmp_path, monkeypatch):
    write_folder(tmp_path)
    assert not any("cop" in line for line in load(tmp_path)[1])
    shutil.copy(tmp_path / "train" / "cat" / "000.jpg", tmp_path / "val" / "cat" / "other name.jpg")
    sentence = "1 test picture is a copy of pictures in the training or validation split, such as "
    assert f"{sentence}val/cat/other name.jpg of train/cat/000.jpg." in load(tmp_path)[1]
    monkeypatch.setattr(copies, "MOST", 1)
    assert any("were not searched for copies: 2 files have equal sizes" in line for line in load(tmp_path)[1])


def test_copies_on_both_sides_of_a_split_by_chance_are_reported(tmp_path):
    for number in range(20):
        for name in (f"{number}.jpg", f"{number} copy.jpg"):
            path = tmp_path / KINDS[number % 3] / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(photograph(number))
    data, notes = load(tmp_path)
    seen = {data.train[i][0].tobytes() for i in range(len(data.train))}
    count = sum(data.test[i][0].tobytes() in seen for i in range(len(data.test)))
    assert count and any(line.startswith(f"{count} test picture") for line in notes)


# --- sets of tensorflow-datasets -------------------------------------------------------------------------------------


def test_a_version_folder_with_a_validation_split(tmp_path):
    folder = tfds_files.prepare(tmp_path, extra={"validation": 5, "unlabelled": 3})
    data, notes = load(folder)
    assert (len(data.train), len(data.test), data.validation) == (28, 11, 5)
    assert notes == [
        "Splits of cifar10: train is used for training, test for the test, validation for validation; not used: unlabelled."
    ]
    assert data.title == "cifar10 (tfds cifar10 3.0.2, 23 + 11 images, 5 of validation)"
    held = hold_out(data, 5000)[1]
    expected = [square(tfds_files.encode(image), SIDE, "it") for image in tfds_files.TRAIN[:5]]
    np.testing.assert_array_equal([held[i][0] for i in range(5)], expected)


# --- classes ---------------------------------------------------------------------------------------------------------


def test_labels_follow_the_names_of_the_classes(tmp_path):
    write_folder(tmp_path)
    data, _ = load(tmp_path)
    labels = [data.train[index][1] for index in range(len(data.train))]
    np.testing.assert_array_equal(labels, sorted(number % 3 for number in range(len(data.train))))
