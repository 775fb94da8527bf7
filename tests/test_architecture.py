"""Check the layers of imports in pyproject.toml (tool.importlinter), and the sizes of packages and files."""

import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

PACKAGE = ROOT / "alexnet_jax"
ROOMS = sorted(str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("*/__init__.py"))


def modules(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_nothing_imports_upwards_or_in_circles():
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_root_has_at_most_18_files():
    assert len(list(PACKAGE.glob("*.py"))) <= 18


@pytest.mark.parametrize("room", sorted({*ROOMS} - {"data"}))
def test_a_room_has_at_most_10_files(room):
    assert len(modules(PACKAGE / room)) <= 10


def test_no_file_has_more_than_300_lines():
    long = {str(path.relative_to(ROOT)): lines(path) for path in PACKAGE.rglob("*.py") if lines(path) > 300}
    assert not long


def test_the_split_can_be_read_in_five_minutes():
    assert lines(PACKAGE / "columns.py") <= 200
