"""The README's example runs as it stands, on one device and on two, and its commands name what exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from alexnet_jax.command_line import READERS
from alexnet_jax.experiment import Traffic
from alexnet_jax.sweeps.plan import Sweep, SweepOptions

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = ("data", "sweeps", "weights", "qualitative", "traffic")


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.evidence), 2])
def test_the_module_example_runs(devices: int) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    first, rest = code.split("\n", 1)
    assert first == "import jax"  # where the README tells the reader to add the line below
    code = f"{first}\njax.config.update('jax_num_cpu_devices', {devices})\n{rest}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(8, 1000) (2, 128, 48, 5, 5)")
    assert f"'column': {devices}" in done.stdout


def test_every_command_names_an_experiment_and_known_options() -> None:
    commands = re.findall(r"python launch\.py [^`#|\n]*", README)
    assert len(commands) > 8
    known = {"--exp", "--mode", "--list", "--help", "--restore", "--workdir", "--dry_run"}
    known |= {f"--{option}" for option in READERS}
    for command in commands:
        options = dict(([*word.split("=", 1), ""])[:2] for word in shlex.split(command)[2:])
        assert options.get("--exp", "alexnet_cifar") in experiments.names(), command
        for option in set(options) - known:
            section, field = option.removeprefix("--").split(".")
            found = experiments.find(options["--exp"])
            base = experiments.experiment(found.base) if isinstance(found, Sweep) else found
            record = {"sweep": SweepOptions(), "traffic": Traffic()}.get(section) or getattr(base, section)
            assert hasattr(record, field), option


def test_every_file_of_the_map_exists() -> None:
    listing = README.split("## The files")[1].split("```")[1]
    names = re.findall(r"\b[\w/]+\.py\b", listing)
    assert len(names) > 20
    for name in names:
        places = (
            ROOT / folder / name
            for folder in (".", "alexnet_jax", *(f"alexnet_jax/{below}" for below in PARTS), "benchmarks")
        )
        assert any(place.exists() for place in places), name


def test_every_module_is_on_the_map() -> None:
    listing = README.split("## The files")[1].split("```")[1]
    for path in (ROOT / "alexnet_jax").rglob("*.py"):
        assert path.name in listing or path.name == "__init__.py", path
