"""The README's example runs as it stands, on one device and on two, and its commands name what exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import experiments
from alexnet_jax.modes import MODES, Traffic
from alexnet_jax.sweeps.plan import Sweep, SweepOptions

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


SLURM = (ROOT / "docs" / "slurm.sh").read_text(encoding="utf-8")
KUBERNETES = (ROOT / "docs" / "kubernetes.yaml").read_text(encoding="utf-8")
TEXTS = {
    "README": README,
    "cluster": (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"),
    "slurm": SLURM,
    "kubernetes": re.sub(r"\n +- (?!name)", " ", KUBERNETES),  # the command, one word a line
}


@pytest.mark.parametrize(("text", "least"), [("README", 8), ("cluster", 5), ("slurm", 1), ("kubernetes", 1)])
def test_every_command_names_an_experiment_and_known_options(text: str, least: int) -> None:
    commands = re.findall(r"python launch\.py [^`#|\n]*", TEXTS[text])
    assert len(commands) >= least
    known = {"--exp", "--mode", "--list", "--help", "--restore", "--workdir", "--dry_run", "--distributed"}
    known |= {f"--{option}" for mode in MODES.values() for option in mode.reads}
    for command in commands:
        options = dict(([*word.split("=", 1), ""])[:2] for word in shlex.split(command)[2:])
        assert options.get("--exp", "alexnet_cifar") in experiments.names(), command
        for option in set(options) - known:
            section, field = option.removeprefix("--").split(".")
            found = experiments.find(options["--exp"])
            base = experiments.experiment(found.base) if isinstance(found, Sweep) else found
            record = {"sweep": SweepOptions(), "traffic": Traffic()}.get(section) or getattr(base, section)
            assert hasattr(record, field), option


def test_the_cluster_files_are_well_formed() -> None:
    assert subprocess.run(["bash", "-n"], input=SLURM, text=True).returncode == 0
    job = yaml.safe_load(KUBERNETES)
    assert job["kind"] == "TrainJob" and job["spec"]["trainer"]["command"][:2] == ["python", "launch.py"]


def test_the_map_of_files_names_every_room_and_every_file_at_the_root() -> None:
    listing = README.split("## The files")[1].split("```")[1]
    root = ROOT / "alexnet_jax"
    names = {path.name for path in root.glob("*.py")} - {"__init__.py"}
    names |= {f"{path.name}/" for path in root.iterdir() if path.is_dir() and not path.name.startswith("__")}
    found = set(re.findall(r"\b\w+(?:\.py|/)", listing))
    assert names <= found
    for name in found:
        assert (ROOT / name).exists() or (root / name).exists(), name
