"""Check that files are replaced atomically: a failed write keeps the old content and leaves no other file."""

import json
import resource
import signal

import numpy as np
import pytest

from alexnet_jax import files


@pytest.fixture
def small_files_only():
    """Limit the size of files that this process can write to 1,000 bytes."""
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, handler)


WRITERS = {
    "text": lambda path, size: files.write(path, "×" * size),
    "bytes": lambda path, size: files.write(path, bytes(size)),
    "JSON": lambda path, size: files.write_json(path, {"key": "x" * size}),
    "array": lambda path, size: files.write_array(path, np.zeros(size)),
    "arrays": lambda path, size: files.write_arrays(path, {"zeros": np.zeros(size)}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_failed_write_keeps_the_old_content(kind, tmp_path, small_files_only):
    path = tmp_path / "file"
    WRITERS[kind](path, 10)
    before = path.read_bytes()
    with pytest.raises(OSError, match="too large|2000 requested"):
        WRITERS[kind](path, 2000)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_keeps_the_old_content(tmp_path):
    path = tmp_path / "file"
    files.write(path, "before")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_replaces_nothing(tmp_path):
    path = tmp_path / "file"
    files.write(path, "before")
    with files.replacing(path):
        pass
    assert path.read_text() == "before"


def test_content_is_read_back_as_written(tmp_path):
    folder = tmp_path / "new" / "folder"
    files.write(folder / "text", "×")
    files.write_json(folder / "json", {"a": [1, None]})
    files.write_array(folder / "array.npy", np.arange(3))
    files.write_arrays(folder / "arrays.npz", {"a": np.arange(2), "b": np.ones((1, 2), np.float32)})
    assert (folder / "text").read_text(encoding="utf-8") == "×"
    assert json.loads((folder / "json").read_text()) == {"a": [1, None]}
    assert np.load(folder / "array.npy").tolist() == [0, 1, 2]
    with np.load(folder / "arrays.npz") as arrays:
        assert {name: array.tolist() for name, array in arrays.items()} == {"a": [0, 1], "b": [[1.0, 1.0]]}


def test_the_cache_folder_is_in_home_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert files.cache_folder() == tmp_path / ".cache" / "alexnet_jax"


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "alexnet_jax"
