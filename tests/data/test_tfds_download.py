"""Check what happens without a prepared CIFAR-10: the network check, the program that prepares it, and the messages."""

import socket
import threading
import time
from pathlib import Path

import pytest
from small_cifar10 import assert_is_the_small_set, fails, fake_archive, load_from
from tfds_files import prepare

from alexnet_jax.data import tfds_download, tfds_prepare
from alexnet_jax.data.registry import load
from alexnet_jax.errors import DataNotFoundError, RunError
from alexnet_jax.experiment import Data

pytest_plugins = ["small_cifar10"]
pytestmark = pytest.mark.usefixtures("surroundings")


def test_neither_data_nor_network_lists_every_way_out(tmp_path):
    fails(
        tmp_path,
        DataNotFoundError,
        f"not prepared in {tmp_path} and cannot be downloaded (no network in tests)",
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
def test_an_error_of_the_server_is_reported(monkeypatch, answer, trouble):
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        in_background(answer_once, server, answer, [])
        assert tfds_download.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/archive", 5.0) == trouble


def test_the_proxy_of_the_environment_is_asked(monkeypatch):
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

    threading.Thread(target=function, args=arguments, daemon=True).start()


def replace_script(monkeypatch, path: Path, program: str) -> None:
    """Replace tfds_prepare.py by `program`, written to a file so that a real subprocess runs it."""
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
    assert "Downloading CIFAR-10 (162 MiB)" in lines[0]


def test_preparing_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_download, "unreachable", lambda url, seconds: None)
    replace_script(monkeypatch, tmp_path / "script.py", "print('the disk is full')\nraise SystemExit(1)\n")
    fails(tmp_path, RunError, "Preparing CIFAR-10 failed (exit status 1): the disk is full")
    replace_script(monkeypatch, tmp_path / "script.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    fails(tmp_path, RunError, "Preparing CIFAR-10 failed (exit status -9): it printed no reason")
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


def test_an_archive_placed_by_hand_needs_no_network(tmp_path, monkeypatch):
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    fake_archive(archive)
    replace_script(monkeypatch, tmp_path / "script.py", "import sys\nprint(*sys.argv[1:])\nraise SystemExit(1)\n")
    lines: list[str] = []
    with pytest.raises(RunError, match=f"download {tmp_path}$"):
        load(Data(dir=str(tmp_path)), log=lines.append)
    assert lines == [f"Preparing CIFAR-10 in {tmp_path} from {archive}."]
