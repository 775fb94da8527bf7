"""The README's results of complete trainings. `pytest -n 0 -m evidence tests/test_evidence.py` takes 1 to 2 hours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.evidence


def trained(workdir: Path, *options: str) -> dict:
    """Run `launch.py` with these options in a separate process, and return its result.json."""
    command = [sys.executable, "launch.py", f"--workdir={workdir}", *options]
    subprocess.run(command, cwd=ROOT, check=True)
    return json.loads((workdir / "result.json").read_text())


def test_digits_reach_95_percent(tmp_path: Path) -> None:  # rounding alone changes three of the 360 answers
    assert trained(tmp_path / "run", "--exp=alexnet_digits")["top1_error"] < 0.05


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR names no prepared CIFAR-10")
def test_cifar_reaches_82_percent_within_30_minutes(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", "--exp=alexnet_cifar")
    assert result["top1_error"] <= 0.18
    assert result["seconds"] <= 30 * 60


def test_one_and_two_devices_begin_alike(tmp_path: Path) -> None:
    losses = []
    for column in (1, 2):
        options = ("--exp=alexnet_digits", f"--mesh.column={column}", "--train.log_every=1", "--train.epochs=2.1")
        trained(tmp_path / str(column), *options)
        lines = map(json.loads, (tmp_path / str(column) / "metrics.jsonl").read_text().splitlines())
        losses.append([line["loss"] for line in lines if line["kind"] == "train"][:5])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
