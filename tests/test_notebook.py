"""Run the cells of the notebook from top to bottom, as one program in a separate process."""

import ast
import json
import os
import subprocess
import sys

import pytest
from running import ROOT

pytest_plugins = ["running"]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"


def program():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_what_the_tour_imports_exists():
    imports = [line for line in ast.parse(program()).body if isinstance(line, ast.Import | ast.ImportFrom)]
    assert len(imports) >= 5
    exec("\n".join(map(ast.unparse, imports)), {})


@pytest.mark.evidence
def test_the_tour_runs(compile_cache):
    variables = {"MPLBACKEND": "agg", "JAX_COMPILATION_CACHE_DIR": str(compile_cache)}
    narrow = program()
    for word, less in (("WIDTH = 0.125", "WIDTH = 0.0625"), ("fc_units=128", "fc_units=32"), ("epochs=3", "epochs=2.1")):
        assert word in narrow
        narrow = narrow.replace(word, less)
    done = subprocess.run(
        [sys.executable, "-c", narrow],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "60,965,224" in done.stdout and "The losses differ by" in done.stdout
    assert "fc8.bias   (10,)                  on each device: [(10,), (10,)]" in done.stdout
