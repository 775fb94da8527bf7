"""Check the images of the modes: samples of a split, EXIF orientation of picture files, and unreadable files."""

import io
import os

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from alexnet_jax.data.dataset import MemorySplit
from alexnet_jax.data.images import square, upright
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.qualitative.examples import (
    UNKNOWN,
    Pictures,
    Sample,
    batches,
    check_all_read,
    output_folder,
    requested_files,
)


def split_of(number):
    images = np.random.default_rng(0).integers(0, 256, (number, 4, 4, 3)).astype(np.uint8)
    return MemorySplit(images, np.arange(number, dtype=np.int32))


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_each_example_counts_once_and_in_order(size):
    split = split_of(7)
    passed = list(batches(split, size))
    assert all(len(images) == len(labels) == len(counted) == size for images, labels, counted in passed)
    np.testing.assert_array_equal(np.concatenate([images[counted] for images, _, counted in passed]), split.images)
    np.testing.assert_array_equal(np.concatenate([labels[counted] for _, labels, counted in passed]), split.labels)


def test_test_images_are_spread_over_the_split():
    sample = Sample(split_of(100), 5)
    assert sample.split.labels.tolist() == [0, 20, 40, 60, 80]
    assert sample.names[1] == "test image 20"
    assert len(Sample(split_of(3), 5)) == 3


# --- picture files ---------------------------------------------------------------------------------------------------


def picture(width, height):
    """Return a smooth picture without symmetry."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray(np.uint8(np.stack([200 * x, 220 * y, 120 * x * y + 60 * x**2], -1)))


def encoded(image, form, orientation=None, **options):
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_picture_is_turned_by_its_exif_orientation(form, orientation):
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(form, {})
    data = encoded(picture(60, 40), form, orientation, **options)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = square(encoded(turned.convert("RGB"), "PNG"), 16, "here").astype(int)
    found = upright(data, 16, "here").astype(int)
    assert found.shape == (16, 16, 3)
    assert np.abs(found - expected).max() <= 3  # the two JPEG decoders differ slightly
    if orientation != 1:
        assert np.abs(square(encoded(picture(60, 40), "PNG"), 16, "here") - expected).max() > 50


def test_a_picture_with_damaged_exif_is_read():
    data = encoded(picture(40, 40), "JPEG", 6)
    broken = data.replace(b"Exif\0\0MM", b"Exif\0\0XX")
    assert broken != data
    np.testing.assert_array_equal(upright(broken, 16, "here"), square(data, 16, "here"))


def test_unreadable_pictures_are_reported_and_skipped(tmp_path, capsys):
    for name in ("a", "c", "d"):
        picture(20, 30).save(tmp_path / f"{name}.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 no picture")
    pictures = Pictures(requested_files((tmp_path,)), 8)
    passed = list(pictures.batches(2))
    assert [os.path.basename(name) for name in pictures.names] == ["a.png", "c.png", "d.png"]
    assert [counted.sum() for _, _, counted in passed] == [1, 2]
    assert all(images.shape == (2, 8, 8, 3) and (labels == UNKNOWN).all() for images, labels, _ in passed)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "b.jpg cannot be read as a picture" in lines[0]
    with pytest.raises(RunError, match="1 of 4 pictures could not be read"):
        check_all_read(pictures)


def test_a_file_given_twice_is_read_once(tmp_path):
    picture(20, 30).save(tmp_path / "a.png")
    assert requested_files((tmp_path / "a.png", tmp_path)) == [tmp_path / "a.png"]


def test_missing_paths_are_an_error(tmp_path):
    with pytest.raises(UsageError, match="nowhere.png: no such file or folder"):
        requested_files((tmp_path / "nowhere.png",))
    with pytest.raises(UsageError, match="no pictures in this folder"):
        requested_files((tmp_path,))


# --- output folder --------------------------------------------------------------------------------------------------


def test_the_output_folder_is_in_the_run_folder(tmp_path):
    assert output_folder(None, tmp_path / "run" / "checkpoints" / "7", "figures") == tmp_path / "run" / "figures"
    assert output_folder(tmp_path / "mine", tmp_path / "checkpoints" / "7", "figures") == tmp_path / "mine"
    assert (tmp_path / "run" / "figures").is_dir() and (tmp_path / "mine").is_dir()


def test_an_unwritable_output_folder_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="is not in a run folder. Choose an output folder with --out"):
        output_folder(None, tmp_path / "7", "figures")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        output_folder(tmp_path / "file" / "figures", tmp_path, "figures")
