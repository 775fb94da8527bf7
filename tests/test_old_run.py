"""Check that a run of an earlier version resumes and reaches the results of that version.

run_before_rooms.zip contains a run of commit eb7abae that was interrupted at step 10, without its TensorBoard events.
Its expected.json contains the results of an uninterrupted run of the same command and commit: the losses of steps 11 to
78 from metrics.jsonl, the line of the test set and the leaves of checkpoint 78.

Other forms of the convolutions, and other processors, round float32 sums differently, and training amplifies the
difference: from 2e-7 until step 20 to up to 0.2 at step 78. The tests therefore compare the first ten losses closely
and the test loss only roughly.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import command, numbers, start

pytest_plugins = ["running"]


@dataclass(frozen=True)
class Continued:
    """A resumed run, and the results of the earlier version."""

    folder: Path
    expected: dict


@pytest.fixture(scope="module")
def continued(tmp_path_factory, compile_cache):
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(Path(__file__).with_name("run_before_rooms.zip")) as archive:
        archive.extractall(folder)
    expected = json.loads((folder / "expected.json").read_text())
    arguments = command(folder / "run", train__epochs=2, train__eval_batch=180, train__save_every=5, train__keep=1)
    # A separate process, since the number of devices determines XLA's threads and with them the order of sums.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("XLA_FLAGS")  # the flags of conftest.py change the last bits
        process = start(arguments, compile_cache, folder / "log", devices=expected["environment"]["device_count"])
    assert process.wait(timeout=300) == 0, (folder / "log").read_text()
    return Continued(folder / "run", expected)


def test_an_old_run_continues_where_it_was_interrupted(continued):
    log = (continued.folder.parent / "log").read_text()
    assert "Continuing at step 10 of 78" in log
    assert [line["step"] for line in numbers(continued.folder)] == list(range(1, 79))


def test_an_old_run_reaches_its_losses(continued):
    losses = [line["loss"] for line in numbers(continued.folder) if line["step"] > 10]
    expected = list(continued.expected["losses"].values())
    assert losses[:10] == pytest.approx(expected[:10], abs=1e-5)


def test_an_old_run_reaches_its_test_result(continued):
    (test,) = numbers(continued.folder, "test")
    expected = continued.expected["test"]
    assert test["step"] == 78 and test["examples"] == 360
    assert test["loss"] == pytest.approx(expected["loss"], abs=0.3)  # the loss of an untrained network is ln(10) = 2.3


def test_an_old_run_has_its_parameters_and_velocities(continued):
    written = json.loads((continued.folder / "checkpoints" / "78" / "checksums" / "metadata").read_text())
    items, expected = written["items"], continued.expected["items"]
    assert {item: set(leaves) for item, leaves in items.items()} == {item: set(leaves) for item, leaves in expected.items()}
