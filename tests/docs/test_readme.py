"""Check that README.md quotes the code of columns.py and the printed tables, and lists every file."""

import re
import subprocess

import pages
import pytest
import yaml
from running import ROOT, main

from alexnet_jax.experiment import Data, MeshOptions, Network, Optim, Train
from alexnet_jax.modes import MODES, Traffic
from alexnet_jax.sweeps.plan import SweepOptions
from docs import draw_traffic

README = pages.PAGES["README.md"]
COMMANDS = pages.PAGES["docs/commands.md"]


def test_the_split_is_quoted_from_columns():
    quoted = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert 14 <= len(quoted) <= 20
    lines = [line.strip() for line in (ROOT / "alexnet_jax" / "columns.py").read_text(encoding="utf-8").splitlines()]
    for line in quoted:
        assert line.strip() in lines


def test_the_table_of_the_first_ten_minutes_is_printed(capsys):
    assert main(["--exp=alexnet_imagenet", "--mode=summary"]) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = README.split("--mode=summary\n")[1].split("\n$")[0].splitlines()
    assert len(shown) == 6
    assert {*shown} - {"..."} <= {*printed}


def test_the_bytes_are_those_of_the_page_about_traffic():
    (megabytes,) = re.findall(r"sends (\d+\.\d+) MB; data parallelism would send (\d+\.\d+) MB", README)
    assert {*megabytes} <= {*re.findall(r"\d+\.\d+", draw_traffic.document())}


def test_the_map_names_every_room_and_root_file():
    listing = README.split("## Where things are")[1].split("```")[1]
    root = ROOT / "alexnet_jax"
    names = {path.name for path in root.glob("*.py")} - {"__init__.py"}
    names |= {f"{path.name}/" for path in root.iterdir() if path.is_dir() and not path.name.startswith("__")}
    found = set(re.findall(r"\b\w+(?:\.py|/)", listing))
    assert names <= found
    for name in found:
        assert (ROOT / name).exists() or (root / name).exists(), name


def test_the_readme_is_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", [page for page in pages.PAGES if page.endswith(".md")])
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", pages.PAGES[page]):
        assert "://" in target or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_page_names_every_mode_with_its_options():
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(default\))? \|.*\| ([^|]*)\|$", COMMANDS.split("## Modes")[1], re.MULTILINE))
    named = {name: mode for name, mode in MODES.items() if not mode.flag}
    assert {name: rows.get(name) for name in named} == {
        name: ", ".join(f"`--{option}`" for option in mode.reads) + (" " if mode.reads else "")
        for name, mode in named.items()
    }


def test_the_page_names_every_option():
    groups = {
        "network": Network,
        "data": Data,
        "optim": Optim,
        "train": Train,
        "mesh": MeshOptions,
        "sweep": SweepOptions,
        "traffic": Traffic,
    }
    rows = dict(re.findall(r"^\| `--(\w+)\.\*` \|.*\| ([^|]*)\|$", COMMANDS, re.MULTILINE))
    for group, record in groups.items():
        assert sorted(re.findall(r"`(\w+)`", rows[group])) == sorted(record.__dataclass_fields__)


def test_the_cluster_files_are_well_formed():
    assert subprocess.run(["bash", "-n"], input=pages.PAGES["docs/slurm.sh"], text=True).returncode == 0
    job = yaml.safe_load(pages.PAGES["docs/kubernetes.yaml"])
    assert job["kind"] == "TrainJob" and job["spec"]["trainer"]["command"][:2] == ["python", "launch.py"]
