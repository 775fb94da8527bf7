"""Mutate input files at random from fixed seeds: each is accepted, or rejected with one message."""

import copy
import io
import json
import random
import time

import numpy as np
import other_programs
import photographs
import pytest
from PIL import Image
from running import LEARNING_EPOCHS, command, contents, main
from weight_files import KINDS, written

from alexnet_jax.command_line import read
from alexnet_jax.data import images, registry
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.weights import formats, inputs

pytest_plugins = ["running"]

ODD = (None, True, -1, 0, 2**70, 1e308, "", "x", "../../outside", "\0", [], {}, [[]], {"a": 1}, "9" * 400)
"""Replacements for a value in JSON."""


def damaged(content, chance):
    """Return the content with a few bytes flipped, removed, repeated, inserted, zeroed or truncated."""
    content, place = bytearray(content), chance.randrange(max(1, len(content)))
    length = chance.choice([1, 2, 8, 100])
    match chance.randrange(6):
        case 0:
            for _ in range(length):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        case 1:
            del content[place : place + length]
        case 2:
            content[place:place] = content[place : place + length]
        case 3:
            content[place:place] = chance.randbytes(length)
        case 4:
            content[place : place + length] = bytes(length)
        case 5:
            del content[place:]
    return bytes(content)


def distorted(values, chance):
    """Return JSON with one value, key or list replaced by an element of ODD."""
    values = copy.deepcopy(values)
    inside = values
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        key = chance.choice(keys)
        if isinstance(inside[key], dict | list) and inside[key] and chance.random() < 0.8:
            inside = inside[key]
            continue
        if chance.random() < 0.2:
            del inside[key]
        elif isinstance(inside, dict) and chance.random() < 0.2:
            inside["unknown"] = chance.choice(ODD)
        else:
            inside[key] = chance.choice(ODD)
        return values


def spoil(file, chance):
    """Damage the bytes of a file, or the values of a JSON file, and return the original content."""
    content = file.read_bytes()
    if file.suffix == ".json" and chance.random() < 0.6:
        file.write_text(json.dumps(distorted(json.loads(content), chance)))
    elif file.suffix == ".jsonl" and chance.random() < 0.6:
        lines = content.decode().splitlines()
        place = chance.randrange(len(lines))
        lines[place] = json.dumps(distorted(json.loads(lines[place]), chance))
        file.write_text("".join(f"{line}\n" for line in lines))
    else:
        file.write_bytes(damaged(content, chance))
    return content


@pytest.fixture
def reported(capsys):
    """Return a function that asserts that an exit status is documented, and that a nonzero one has a message."""

    def check(status, seed):
        message = capsys.readouterr().err
        assert status in (0, 1, 2), (seed, status)
        assert "Traceback" not in message and len(message) < 6000, (seed, message)
        assert status == 0 or message.strip(), seed

    return check


# --- the folder of a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["experiment.json", "result.json", "metrics.jsonl"])
def test_a_report_of_a_damaged_run(copied, reported, name):
    for seed in range(12):
        before = spoil(copied / name, random.Random(seed))
        reported(main(command(copied, mode="report")), seed)
        (copied / name).write_bytes(before)
    assert [path.name for path in copied.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["experiment.json", "result.json", "statistics.npz"])
def test_training_in_a_damaged_run(copied, reported, name):
    for seed in range(8):
        before = spoil(copied / name, random.Random(seed))
        if not (name == "result.json" and b"117" not in (copied / name).read_bytes()):  # otherwise it would resume
            reported(main(command(copied, train__epochs=LEARNING_EPOCHS)), seed)
        (copied / name).write_bytes(before)
    assert [path.name for path in copied.parent.iterdir()] == ["run"]


def test_the_options_of_a_damaged_run(copied):
    before = contents(copied.parent)
    for seed in range(150):
        content = spoil(copied / "experiment.json", random.Random(seed))
        try:
            read(["--exp=alexnet_digits", "--mode=eval", f"--workdir={copied}"])
        except (UsageError, RunError) as problem:
            assert str(problem), seed
        except SystemExit as stop:
            assert stop.code == 2, seed
        (copied / "experiment.json").write_bytes(content)
    assert {path: data for path, (data, _) in contents(copied.parent).items()} == {
        path: data for path, (data, _) in before.items()
    }


# --- data ------------------------------------------------------------------------------------------------------------


def saved(kind, mode, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


PICTURES = {
    "jpeg": photographs.photograph(1),
    "grey jpeg": photographs.photograph(4),
    "cmyk jpeg": saved("JPEG", "CMYK"),
    "progressive jpeg": saved("JPEG", "RGB", progressive=True),
    "png": saved("PNG", "RGBA"),
    "16-bit png": saved("PNG", "I;16"),
    "palette png": saved("PNG", "P"),
    "animated gif": saved("GIF", "P", save_all=True, append_images=[Image.new("P", (30, 40))]),
    "bmp": saved("BMP", "RGB"),
    "tiff": saved("TIFF", "RGB", compression="tiff_lzw"),
    "webp": saved("WEBP", "RGB"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_damaged_picture(kind):
    assert images.square(PICTURES[kind], 24, "cat").shape == (24, 24, 3)
    started = time.monotonic()
    for seed in range(60):
        try:
            pixels = images.upright(damaged(PICTURES[kind], random.Random(seed)), 24, "cat")
            assert pixels.shape == (24, 24, 3) and pixels.dtype == np.uint8, seed
        except RunError as problem:
            assert "cat cannot be read as a picture" in str(problem), seed
    assert time.monotonic() - started < 30


def test_damaged_tensorflow_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = photographs.write_imagenet(tmp_path / "data")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) >= 4
    for seed in range(30):
        chance = random.Random(seed)
        file = chance.choice(files)
        before = spoil(file, chance)
        try:
            found = registry.load(Data("imagenet2012", dir=str(tmp_path / "data"), side=24, prepared="none"))
            for split in (found.train, found.test):
                for index in range(0, len(split), 4):
                    assert split[index][0].shape == (24, 24, 3)
        except (UsageError, RunError) as problem:
            assert str(problem), seed
        file.write_bytes(before)


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_of_weights(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, kind)
    content = path.read_bytes()
    for seed in range(30):
        path.write_bytes(damaged(content, random.Random(seed)))
        try:
            found = formats.read(path)
            assert all(tensor.dtype == np.float32 for tensor in found.tensors.values()), seed
        except UsageError as problem:
            assert str(path) in str(problem), seed
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_damaged_mean_image(tmp_path):
    path = tmp_path / "mean.binaryproto"
    content = other_programs.binaryproto(np.ones((3, 4, 5), np.float32))
    for seed in range(60):
        path.write_bytes(damaged(content, random.Random(seed)))
        try:
            assert inputs.mean_image(path).dtype == np.float32, seed
        except UsageError as problem:
            assert str(path) in str(problem), seed
