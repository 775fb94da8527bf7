"""A run folder begun by an earlier version continues to the numbers that version reached.

run_before_rooms.zip holds a run that commit eb7abae began and that was interrupted at step 10, without its TensorBoard events.
Its expected.json holds what the same commit reached with the same command when it was not interrupted: the losses of steps
11 to 78 from metrics.jsonl, the line of the test set, the checksum of every leaf of checkpoint 78, and the environment.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import command, numbers, start

from alexnet_jax.run import checksums
from alexnet_jax.run.environment import current_environment

pytest_plugins = ["running"]


@dataclass(frozen=True)
class Continued:
    """A run that was continued, and what the earlier version reached."""

    folder: Path
    expected: dict
    same_environment: bool


@pytest.fixture(scope="module")
def continued(tmp_path_factory, compile_cache):
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(Path(__file__).with_name("run_before_rooms.zip")) as archive:
        archive.extractall(folder)
    expected = json.loads((folder / "expected.json").read_text())
    arguments = command(folder / "run", train__epochs=2, train__eval_batch=180, train__save_every=5, train__keep=1)
    # In a process of its own: XLA's threads, and with them the order of sums, follow the number of devices.
    process = start(arguments, compile_cache, folder / "log", devices=expected["environment"]["device_count"])
    assert process.wait(timeout=300) == 0, (folder / "log").read_text()
    now, then = current_environment(), expected["environment"]
    same = now.processor == then["processor"] and all(now.versions[name] == then[name] for name in ("jax", "jaxlib"))
    return Continued(folder / "run", expected, same)


def test_an_old_run_continues_where_it_was_interrupted(continued):
    log = (continued.folder.parent / "log").read_text()
    assert "Continuing at step 10 of 78" in log
    assert [line["step"] for line in numbers(continued.folder)] == list(range(1, 79))


def test_an_old_run_reaches_its_losses(continued):
    losses = {str(line["step"]): line["loss"] for line in numbers(continued.folder) if line["step"] > 10}
    expected = continued.expected["losses"]
    if continued.same_environment:
        assert losses == expected
    else:
        assert losses == pytest.approx(expected, rel=1e-3)


def test_an_old_run_reaches_its_test_result(continued):
    (test,) = numbers(continued.folder, "test")
    expected = continued.expected["test"]
    assert test["step"] == 78 and test["examples"] == 360
    if continued.same_environment:
        assert {name: test[name] for name in expected} == expected
    else:
        assert test["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_an_old_run_reaches_its_parameters_and_velocities(continued):
    record = checksums.read(continued.folder / "checkpoints" / "78")
    if continued.same_environment:
        assert record["items"] == continued.expected["items"]
    else:
        for item, leaves in continued.expected["items"].items():
            assert {k: v[:2] for k, v in record["items"][item].items()} == {k: v[:2] for k, v in leaves.items()}
