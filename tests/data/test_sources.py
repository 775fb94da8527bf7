"""Data sets: what `load` returns, where it looks, and what it says when something is missing or damaged.

Small prepared sets are built here, without TensorFlow; only what runs tfds_prepare.py needs it, in a subprocess.
"""

import hashlib
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from tfds_files import (
    CLASSES,
    TEST,
    TEST_LABELS,
    TRAIN,
    TRAIN_LABELS,
    encode,
    example,
    pictures,
    prepare,
    records,
    write_array_record,
    write_tfrecord,
)

from alexnet_jax.data import array_cache, cifar10, digits, registry, tfds_download, tfds_prepare, tfds_sets
from alexnet_jax.data.dataset import DataSet, check_labels
from alexnet_jax.data.registry import load
from alexnet_jax.errors import DataNotFoundError, RunError, UsageError
from alexnet_jax.experiment import Data

REAL_DATA = os.environ.get("TFDS_DATA_DIR")
REPOSITORY = Path(registry.__file__).parents[2]

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("importlib_resources") is None,
    reason="preparing data needs TensorFlow: pip install tensorflow-cpu importlib_resources",
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """A cache folder and a home of the test's own; no data folder, and no network for anyone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: "no network in tests")


def load_from(folder: Path) -> tuple[DataSet, list[str]]:
    """(what `load` returns for the data folder `folder`, the lines it logged)"""
    lines: list[str] = []
    return load(Data(dir=str(folder)), log=lines.append), lines


def fails(folder: Path, error: type[Exception], *fragments: str) -> None:
    """Assert that `load` raises exactly `error` with a message that has every fragment."""
    with pytest.raises(error) as raised:
        load_from(folder)
    assert type(raised.value) is error
    for fragment in fragments:
        assert fragment in str(raised.value)


def assert_is_the_small_set(data: DataSet) -> None:
    np.testing.assert_array_equal(data.train.images, TRAIN)
    np.testing.assert_array_equal(data.test.images, TEST)
    assert data.train.labels.tolist() == TRAIN_LABELS
    assert data.test.labels.tolist() == TEST_LABELS
    for split in (data.train, data.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


# The digits


def test_digits_are_images_like_the_others():
    data = load(Data(name="digits"))
    assert data.title == "scikit-learn digits, 1,797 images enlarged to 32x32x3"
    assert data.classes == tuple("0123456789")
    assert (data.train.images.shape, data.test.images.shape) == ((1437, 32, 32, 3), (360, 32, 32, 3))
    for split in (data.train, data.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert (split.images.min(), split.images.max()) == (0, 255)
        np.testing.assert_array_equal(split.images[..., 0], split.images[..., 1])
        np.testing.assert_array_equal(split.images[..., 0], split.images[..., 2])
        assert np.bincount(split.labels, minlength=10).min() > len(split.labels) / 15


def test_digits_keep_pixels_and_labels_together_and_split_all_of_them():
    from sklearn.datasets import load_digits

    original, data = load_digits(), load(Data(name="digits"))
    large = digits.enlarge(original.images)
    expected = {image.tobytes(): label for image, label in zip(large, original.target, strict=True)}
    assert len(expected) == 1797
    found = {}
    for split in (data.train, data.test):
        found |= {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
    assert found == expected


def test_digits_split_is_the_same_in_every_run_whatever_the_seed():
    first = load(Data(name="digits"))
    np.random.seed(5)
    second = load(Data(name="digits"))
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert first.fingerprint == second.fingerprint
    # Recorded: results on the test split can be compared only while this split stays.
    assert hashlib.sha256(first.test.labels.tobytes()).hexdigest()[:8] == "90b64c94"


def test_enlarging_is_bilinear():
    ramp = np.tile(np.arange(8.0), (8, 1))[None]
    row = digits.enlarge(ramp)[0, 16, :, 0]
    assert np.all(np.diff(row.astype(int)) >= 0)
    expected = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7) * 255 / 16
    np.testing.assert_array_equal(row, np.rint(expected))


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match="pip install scikit-learn"):
        load(Data(name="digits"))


# Prepared CIFAR-10


def test_a_prepared_set_is_read_exactly(tmp_path):
    prepare(tmp_path)
    data, _ = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert (data.name, data.classes) == ("cifar10", CLASSES)
    assert data.title == "CIFAR-10 (tfds cifar10 3.0.2)"


def test_a_jpeg_set_says_so(tmp_path):
    values = [example(encode(image, "JPEG"), 3) for image in TRAIN]
    prepare(tmp_path, values, encoding="jpeg")
    data, _ = load_from(tmp_path)
    assert data.title == "CIFAR-10 (tfds cifar10 3.0.2, JPEG re-encoded)"


def test_a_thousand_and_one_examples_cross_the_edge_of_a_block(tmp_path):
    images = np.repeat(pictures(1, 3), 1001, axis=0)
    images[:, 0, 0, 0] = np.arange(1001) % 256
    prepare(tmp_path, records(images, [i % 10 for i in range(1001)]))
    data, _ = load_from(tmp_path)
    np.testing.assert_array_equal(data.train.images, images)
    assert data.train.labels.tolist() == [i % 10 for i in range(1001)]


def test_a_set_with_array_record_as_its_second_format_is_read(tmp_path):
    version_folder = prepare(tmp_path)
    description = version_folder / "dataset_info.json"
    values = json.loads(description.read_text())
    values |= {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    description.write_text(json.dumps(values))
    data, _ = load_from(tmp_path)
    assert_is_the_small_set(data)


def test_reading_and_caching_import_no_tensorflow(tmp_path):
    prepare(tmp_path / "data")
    program = (
        "import sys\n"
        "from alexnet_jax.data.registry import load\n"
        "from alexnet_jax.experiment import Data\n"
        "sizes = [len(load(Data()).train.labels) for _ in range(2)]\n"
        "print(sizes, 'tensorflow' in sys.modules)\n"
    )
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[23, 23] False", done.stderr
    assert "WARNING" not in done.stderr


def test_the_folder_is_the_option_then_the_environment_then_home(tmp_path, monkeypatch):
    option, environment, home = tmp_path / "option", tmp_path / "environment", tmp_path / "home"
    for folder in (option, environment):
        folder.mkdir()
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, None) == home / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(environment))
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, None) == environment
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, str(option)) == option
    monkeypatch.chdir(tmp_path)
    assert tfds_sets.data_folder(tfds_sets.CIFAR10, "option") == option


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    missing = tmp_path / "missing"
    fails(missing, UsageError, f"--data.dir={missing}", "no such folder")
    monkeypatch.setenv("TFDS_DATA_DIR", str(missing))
    with pytest.raises(UsageError, match=f"TFDS_DATA_DIR={missing}"):
        load(Data())


def test_a_folder_too_deep(tmp_path):
    version_folder = prepare(tmp_path)
    fails(version_folder, UsageError, "expected the folder that contains cifar10/")
    fails(version_folder.parent, UsageError, "expected the folder that contains cifar10/")


@pytest.mark.skipif(not REAL_DATA, reason="the real CIFAR-10 needs TFDS_DATA_DIR")
def test_the_real_cifar10_is_found_and_its_records_are_readable():
    prepared = cifar10.find(tfds_sets.data_folder(tfds_sets.CIFAR10, REAL_DATA), print)
    assert prepared.counts == {"train": 50_000, "test": 10_000}
    assert prepared.classes == CLASSES
    examples = cifar10._examples(prepared.builder.as_data_source("test"), range(500), "test", prepared.folder)
    assert {example["image"].shape for example in examples} == {(32, 32, 3)}
    assert {int(example["label"]) for example in examples} == set(range(10))


# Fingerprint and cache


def test_the_fingerprint_follows_the_data_not_the_place(tmp_path):
    prepare(tmp_path / "one")
    prepare(tmp_path / "two")
    one, two = load_from(tmp_path / "one")[0].fingerprint, load_from(tmp_path / "two")[0].fingerprint
    assert one == two
    assert set(one) <= set("0123456789abcdef")
    prepare(tmp_path / "other", records(TRAIN, TRAIN_LABELS[::-1]))
    assert load_from(tmp_path / "other")[0].fingerprint != one
    features = tmp_path / "two" / "cifar10" / "3.0.2" / "label.labels.txt"
    features.write_text(features.read_text().replace("ship", "boat"))
    assert load_from(tmp_path / "two")[0].fingerprint != one


def cache_file(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "alexnet_jax").iterdir()
    return file


def test_the_second_start_decodes_nothing(tmp_path, monkeypatch):
    prepare(tmp_path)
    first, lines = load_from(tmp_path)
    assert len(lines) == 1
    assert str(cache_file(tmp_path)) in lines[0]
    monkeypatch.setattr(cifar10, "decode", None)
    second, lines = load_from(tmp_path)
    assert lines == []
    assert_is_the_small_set(second)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "other arrays", "other shape"])
def test_a_damaged_cache_is_noticed_and_rebuilt(tmp_path, damage):
    prepare(tmp_path)
    load_from(tmp_path)
    file = cache_file(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "one bit":
        content[content.index(TRAIN[5].tobytes()) + 7] ^= 16
        file.write_bytes(content)
    elif damage == "other arrays":
        np.savez(file, something=np.zeros(3))
    else:
        with np.load(file) as stored:
            arrays = dict(stored)
        np.savez(file, **arrays | {"train_images": arrays["train_images"][1:]})
    data, lines = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert f"The cache file {file} is damaged" in lines[0]
    data, lines = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert lines == []


def test_no_flipped_byte_of_a_cache_file_goes_unnoticed(tmp_path):
    path, arrays = tmp_path / "small.npz", {"a": np.arange(6, dtype=np.uint8), "b": np.arange(3, dtype=np.int32)}
    expected = {"a": ((6,), "uint8"), "b": ((3,), "int32")}
    array_cache.write(path, arrays, print)
    content, damaged = path.read_bytes(), 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0xFF
        path.write_bytes(flipped)
        read = array_cache.read(path, expected, lambda line: None)
        damaged += read is None
        if read is not None:  # a byte of the zip file that carries no data, such as a date
            for name, array in arrays.items():
                np.testing.assert_array_equal(read[name], array)
    assert damaged > len(content) / 2


def test_an_interrupted_write_leaves_the_old_cache_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "small.npz"
    array_cache.write(path, {"a": np.zeros(2)}, print)

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        array_cache.write(path, {"a": np.ones(2)}, print)
    assert array_cache.read(path, {"a": ((2,), "float64")}, print)["a"].tolist() == [0, 0]
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_costs_one_line(tmp_path):
    prepare(tmp_path / "data")
    (tmp_path / "cache").write_text("a file where the folder should be")
    data, lines = load_from(tmp_path / "data")
    assert_is_the_small_set(data)
    assert len(lines) == 2
    assert "could not be written" in lines[1]


# Damaged data


def test_check_labels_takes_what_fits():
    check_labels(np.array([0, 9, 4], np.int32), 10, "a test")
    check_labels(np.array([], np.int64), 10, "a test")


@pytest.mark.parametrize(("labels", "message"), [
    ([3, -1, 2], r"Label 1 of the split 'x' is -1, expected 0 to 9 \(1 of 3 labels"),
    ([10, 3, 11], r"Label 0 of the split 'x' is 10, expected 0 to 9 \(2 of 3 labels"),
    ([1.0, 2.0], r"labels of the split 'x' are float64, expected integers"),
])  # fmt: skip
def test_check_labels_names_the_first_wrong_one(labels, message):
    with pytest.raises(RunError, match=message):
        check_labels(np.array(labels), 10, "the split 'x'")


@pytest.mark.parametrize("label", [-1, 10, 2**32])
def test_a_label_out_of_range_is_an_error_and_is_never_cached(tmp_path, label):
    labels = [*TRAIN_LABELS[:7], label, *TRAIN_LABELS[8:]]
    version_folder = prepare(tmp_path, records(TRAIN, labels))
    for _ in range(2):
        fails(tmp_path, RunError, f"Label 7 of the split 'train' in {version_folder} is {label}, expected 0 to 9")


def test_an_image_of_another_shape(tmp_path):
    values = records(TEST, TEST_LABELS)
    values[4] = example(encode(np.zeros((32, 31, 3), np.uint8)), 1)
    version_folder = prepare(tmp_path, test=values)
    fails(tmp_path, RunError, f"Image 4 of the split 'test' in {version_folder} is uint8 (32, 31, 3)", "(32, 32, 3)")


def test_features_of_another_shape(tmp_path):
    version_folder = prepare(tmp_path, shape=(28, 28, 1))
    fails(tmp_path, RunError, f"{version_folder / 'features.json'} says images are uint8 (28, 28, 1)")


def test_an_image_that_cannot_be_decoded(tmp_path):
    values = records(TRAIN, TRAIN_LABELS)
    values[20] = example(b"no image at all", 1)
    version_folder = prepare(tmp_path, values)
    fails(tmp_path, RunError, f"Example 20 of the split 'train' in {version_folder} cannot be read")


def test_a_record_that_is_no_example(tmp_path):
    values = records(TRAIN, TRAIN_LABELS)
    values[0] = b"\xff\xff\xff"
    version_folder = prepare(tmp_path, values)
    fails(tmp_path, RunError, f"Example 0 of the split 'train' in {version_folder} cannot be read")


def record_file(version_folder: Path) -> Path:
    return version_folder / "cifar10-train.array_record-00001-of-00002"


def test_a_missing_record_file(tmp_path):
    file = record_file(prepare(tmp_path))
    file.unlink()
    fails(tmp_path, RunError, f"The record file {file} is missing")


@pytest.mark.parametrize("size", [0, 1000, 65536])
def test_a_truncated_record_file(tmp_path, size):
    file = record_file(prepare(tmp_path))
    assert file.stat().st_size > size
    os.truncate(file, size)
    fails(tmp_path, RunError, f"The record file {file} of the split 'train' is damaged or truncated")


def test_a_flipped_bit_in_a_record_file(tmp_path):
    version_folder = prepare(tmp_path, shards=1)
    file = version_folder / "cifar10-train.array_record-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[content.index(encode(TRAIN[6])) + 50] ^= 1
    file.write_bytes(content)
    fails(tmp_path, RunError, f"Example 6 of the split 'train' in {version_folder} cannot be read", "Corrupted")


def test_a_count_that_differs(tmp_path):
    version_folder = prepare(tmp_path)
    write_array_record(record_file(version_folder), records(TRAIN[:5], TRAIN_LABELS[:5]))
    fails(tmp_path, RunError, str(record_file(version_folder)), "has 5 examples, but dataset_info.json says 12")


def test_a_split_that_is_missing(tmp_path):
    version_folder = prepare(tmp_path)
    description = version_folder / "dataset_info.json"
    values = json.loads(description.read_text())
    values["splits"] = values["splits"][:1]
    description.write_text(json.dumps(values))
    fails(tmp_path, RunError, f"The description of CIFAR-10 in {version_folder} cannot be read", "test")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_description_cut_short(tmp_path, name):
    file = prepare(tmp_path) / name
    file.write_text(file.read_text()[:80])
    fails(tmp_path, RunError, "The description of CIFAR-10 in", "cannot be read")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_half_written_set(tmp_path, name):
    version_folder = prepare(tmp_path)
    (version_folder / name).unlink()
    fails(tmp_path, RunError, f"{version_folder} is incomplete", "Delete that folder")


# Not prepared


def test_neither_data_nor_network_lists_every_way_out(tmp_path):
    fails(
        tmp_path,
        DataNotFoundError,
        f"neither prepared in {tmp_path} nor downloadable (no network in tests)",
        "TFDS_DATA_DIR=",
        "--data.dir=",
        str(tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"),
        "python -m alexnet_jax.data.tfds_prepare download",
        "pip install tensorflow-datasets array_record tensorflow-cpu importlib_resources",
        "--data.name=digits",
    )


def test_a_server_that_never_answers_is_given_up_in_time(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        trouble = tfds_download.unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/archive", 1.0)
        assert time.monotonic() - start < 3
    assert trouble == "127.0.0.1 does not answer within 1 s"


def hang(*args, **kwargs):
    time.sleep(2)
    raise socket.gaierror("name not known")


def test_a_name_server_that_hangs_is_given_up_in_time(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    assert (
        tfds_download.unreachable("http://example.invalid/archive", 0.5)
        == "example.invalid does not answer within 0.5 s"
    )
    assert time.monotonic() - start < 2


def answer_once(server: socket.socket, answer: bytes, requests: list[bytes]) -> None:
    connection, _ = server.accept()
    with connection:
        requests.append(connection.recv(4096))
        connection.sendall(answer)


@pytest.mark.parametrize(("answer", "trouble"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
    (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "127.0.0.1 answers 503 Busy"),
])  # fmt: skip
def test_the_probe_hears_the_answer(monkeypatch, answer, trouble):
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        in_background(answer_once, server, answer, [])
        assert tfds_download.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/archive", 5.0) == trouble


def test_the_probe_asks_a_proxy_where_one_is_set(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        in_background(answer_once, proxy, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", requests)
        assert tfds_download.unreachable("http://example.invalid/archive", 5.0) is None
    assert requests[0].startswith(b"GET http://example.invalid/archive")


def test_a_refused_connection(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert (
        tfds_download.unreachable(f"http://127.0.0.1:{port}/archive", 5.0)
        == "no connection to 127.0.0.1: ConnectionError"
    )


def in_background(function, *arguments) -> None:
    import threading

    threading.Thread(target=function, args=arguments, daemon=True).start()


def replace_script(monkeypatch, path: Path, program: str) -> None:
    """Let `program` run in the place of tfds_prepare.py; a file, so that the subprocess is a real one."""
    path.write_text(program)
    monkeypatch.setattr(tfds_download, "PREPARE_SCRIPT", path)


def test_with_network_the_set_is_prepared_and_read(tmp_path, monkeypatch):
    prepare(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: None)
    program = (
        "import shutil, sys\n"
        "assert sys.argv[1] == 'download'\n"
        f"shutil.copytree({str(tmp_path / 'elsewhere' / 'cifar10')!r}, sys.argv[2] + '/cifar10')\n"
    )
    replace_script(monkeypatch, tmp_path / "script.py", program)
    data, lines = load_from(tmp_path / "data")
    assert_is_the_small_set(data)
    assert "downloaded (162 MiB)" in lines[0]


def test_preparing_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: None)
    replace_script(monkeypatch, tmp_path / "script.py", "print('the disk is full')\nraise SystemExit(1)\n")
    fails(tmp_path, RunError, "Preparing CIFAR-10 failed (exit status 1): the disk is full")
    replace_script(monkeypatch, tmp_path / "script.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    fails(tmp_path, RunError, "Preparing CIFAR-10 failed (exit status -9): it gave no reason")
    replace_script(monkeypatch, tmp_path / "script.py", "")
    fails(tmp_path, RunError, f"tensorflow-datasets does not find it in {tmp_path}")


def test_another_process_that_prepared_it_first_is_welcome(tmp_path, monkeypatch):
    prepare(tmp_path / "elsewhere")
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: None)
    program = (
        "import shutil, sys\n"
        f"shutil.copytree({str(tmp_path / 'elsewhere' / 'cifar10')!r}, sys.argv[2] + '/cifar10')\n"
        "raise SystemExit(1)\n"
    )
    replace_script(monkeypatch, tmp_path / "script.py", program)
    assert_is_the_small_set(load_from(tmp_path)[0])


def test_without_tensorflow_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: None)
    program = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = None\n"
        f"runpy.run_path({tfds_prepare.__file__!r}, run_name='__main__')\n"
    )
    replace_script(monkeypatch, tmp_path / "script.py", program)
    fails(tmp_path, DataNotFoundError, "training does not", "pip install tensorflow-cpu importlib_resources")


def fake_archive(path: Path) -> None:
    """An archive like CIFAR-10's, with the small set in it (23 training images over five files)."""
    path.parent.mkdir(parents=True)
    parts = {f"data_batch_{i + 1}.bin": range(23)[5 * i : 5 * i + 5] for i in range(5)}
    contents = {name: (TRAIN, TRAIN_LABELS, indices) for name, indices in parts.items()}
    contents["test_batch.bin"] = (TEST, TEST_LABELS, range(11))
    with tarfile.open(path, "w:gz") as archive:
        for name, (images, labels, indices) in contents.items():
            add(archive, name, b"".join(bytes([labels[i]]) + images[i].transpose(2, 0, 1).tobytes() for i in indices))
        add(archive, "batches.meta.txt", "\n".join(CLASSES).encode() + b"\n\n")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def test_an_archive_placed_by_hand_needs_no_network(tmp_path, monkeypatch):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    fake_archive(archive)
    replace_script(monkeypatch, tmp_path / "script.py", "import sys\nprint(*sys.argv[1:])\nraise SystemExit(1)\n")
    lines: list[str] = []
    with pytest.raises(RunError, match=f"download {tmp_path}$"):
        load(Data(dir=str(tmp_path)), log=lines.append)
    assert lines == [f"CIFAR-10 is prepared from {archive} in {tmp_path}."]


PREPARATIONS = """
import json, sys
from alexnet_jax.data.tfds_prepare import main
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification.cifar import Cifar10
out = sys.stdout
tasks, archive, url = json.loads(sys.argv[1])
for arguments in tasks:
    if arguments[1].endswith("right"):
        info = checksums.compute_url_info(archive)
        Cifar10.url_infos = {url: info}
    sys.stdout = out
    print("status", main(arguments), file=out)
"""
"""Several tasks in one process, because importing TensorFlow takes 5 s. tensorflow-datasets enforces the checksum of the
real archive; for the folder `right` it is told that of the small one."""


@pytest.fixture(scope="module")
def prepared_by_program(tmp_path_factory):
    """tfds_prepare.py run on four folders: {name: (folder, what it said with its status)}"""
    root = tmp_path_factory.mktemp("preparations")
    folders = {name: root / name for name in ("cut", "short", "wrong", "right")}
    damage_tfrecords(folders)
    for name in ("wrong", "right"):
        fake_archive(folders[name] / "downloads" / "manual" / "cifar-10-binary.tar.gz")
    versions = [str(folders[name] / "cifar10" / "3.0.2") for name in ("cut", "short")]
    tasks = [["convert", version, f"{version}-new"] for version in versions]
    tasks += [["download", str(folders[name])] for name in ("wrong", "right")]
    archive = str(folders["right"] / "downloads" / "manual" / "cifar-10-binary.tar.gz")
    command = [sys.executable, "-c", PREPARATIONS, json.dumps([tasks, archive, tfds_download.ARCHIVE])]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = re.findall(r"(.*?)status (\d+)\n", done.stdout, re.DOTALL)
    assert len(said) == 4, done.stderr
    return {name: (folders[name], *answer) for name, answer in zip(folders, said, strict=True)}


SHARD = "cifar10-test.tfrecord-00001-of-00002"


def damage_tfrecords(folders: dict[str, Path]) -> None:
    """One set with a record file cut within a record, one with a file cut between two records."""
    cut = prepare(folders["cut"], file_format="tfrecord") / SHARD
    os.truncate(cut, cut.stat().st_size - 100)
    short = prepare(folders["short"], file_format="tfrecord") / SHARD
    write_tfrecord(short, records(TEST[5:8], TEST_LABELS[5:8]))


@needs_tensorflow
def test_an_archive_placed_by_hand_is_prepared(prepared_by_program):
    folder, message, status = prepared_by_program["right"]
    assert (message, status) == ("", "0")
    data, _ = load_from(folder)
    assert data.classes == CLASSES
    assert data.title == "CIFAR-10 (tfds cifar10 3.0.2)"
    for split, images, labels in ((data.train, TRAIN, TRAIN_LABELS), (data.test, TEST, TEST_LABELS)):
        found = {image.tobytes(): int(label) for image, label in zip(split.images, split.labels, strict=True)}
        assert found == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    info = json.loads((folder / "cifar10" / "3.0.2" / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"


@needs_tensorflow
def test_a_wrong_archive_is_refused(prepared_by_program):
    folder, message, status = prepared_by_program["wrong"]
    assert status == "1"
    assert message.startswith("The archive is not the one tensorflow-datasets expects; delete it and get it again.")
    assert f"{folder / 'downloads' / 'manual' / 'cifar-10-binary.tar.gz'}, has wrong checksum" in message
    assert list(folder.glob("cifar10/*")) == []


@needs_tensorflow
@pytest.mark.parametrize(("name", "fault"), [
    ("cut", "is damaged or missing: "),
    ("short", "has 3 examples, but dataset_info.json says 6."),
])  # fmt: skip
def test_damaged_tfrecord_files_leave_nothing_half_converted(prepared_by_program, name, fault):
    folder, message, status = prepared_by_program[name]
    assert status == "1"
    assert message.startswith(f"The record file {folder / 'cifar10' / '3.0.2' / SHARD} {fault}")
    assert [file.name for file in (folder / "cifar10").iterdir()] == ["3.0.2"]


# Prepared as tfrecord


@needs_tensorflow
def test_a_tfrecord_set_is_converted_once_and_left_as_it_was(tmp_path, monkeypatch):
    version_folder = prepare(tmp_path, file_format="tfrecord")
    before = {file.name: file.read_bytes() for file in version_folder.iterdir()}
    data, lines = load_from(tmp_path)
    assert_is_the_small_set(data)
    assert any("converted once to array_record" in line for line in lines)
    assert {file.name: file.read_bytes() for file in version_folder.iterdir()} == before
    (converted,) = set(version_folder.parent.iterdir()) - {version_folder}
    assert sorted(file.suffix for file in converted.iterdir()).count(".array_record-00000-of-00002") == 2

    # Without the cache of images the copy is read again; nothing is converted.
    cache_file(tmp_path).unlink()
    monkeypatch.setattr(cifar10, "run_prepare_script", None)
    again, lines = load_from(tmp_path)
    assert_is_the_small_set(again)
    assert again.fingerprint == data.fingerprint
    assert not any("converted" in line for line in lines)


def test_a_tfrecord_set_in_a_folder_that_cannot_be_written_is_converted_into_the_cache(tmp_path, monkeypatch):
    version_folder = prepare(tmp_path, file_format="tfrecord")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    asked = []
    monkeypatch.setattr(cifar10, "run_prepare_script", lambda *arguments: asked.append(arguments))
    with pytest.raises(RunError):  # nothing was converted
        load_from(tmp_path)
    ((task, source, target),) = asked
    assert (task, source) == ("convert", version_folder)
    assert target.parent == tmp_path / "cache" / "alexnet_jax"


def test_another_format_is_named(tmp_path):
    version_folder = prepare(tmp_path)
    description = version_folder / "dataset_info.json"
    description.write_text(description.read_text().replace('"array_record"', '"riegeli"'))
    for file in version_folder.glob("*.array_record-*"):
        file.rename(file.with_name(file.name.replace("array_record", "riegeli")))
    fails(tmp_path, RunError, f"{version_folder} is in the format riegeli; expected array_record or tfrecord")


def test_the_preparing_program_called_wrongly_says_how(capsys):
    for arguments in ([], ["download"], ["convert", "one"], ["other", "one"]):
        assert tfds_prepare.main(arguments) == 2
        assert "tfds_prepare download DATA_FOLDER" in capsys.readouterr().out
