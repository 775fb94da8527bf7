"""Check that the torch program in docs/weights.md computes the same logits, and that its commands are valid."""

import functools
import re
import shlex

import jax
import numpy as np
import pytest
import reference
from running import ROOT

from alexnet_jax import model
from alexnet_jax.columns import Columns
from alexnet_jax.command_line import read
from alexnet_jax.network.table import shapes
from alexnet_jax.weights import formats, layouts

TEXT = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


def test_the_torch_program_gives_the_same_logits(narrow, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    table = narrow("alexnet", image=(99, 131, 3))
    parameters = reference.random_parameters(shapes(table), dtype=np.float32)
    formats.write(tmp_path / "alexnet.safetensors", layouts.to_file(table, parameters, "grouped"), {})
    images = reference.random_examples(table, 2, dtype=np.float32)[0]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], names)
    found = names["logits"](torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    run = jax.jit(functools.partial(model.logits, table, Columns.over()))
    expected = np.asarray(run(parameters, images))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def commands():
    lines = TEXT.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python launch.py")]


def test_the_commands_are_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 5
    for _, _, *arguments in commands():
        mode, request = read(arguments)
        assert f"--mode={mode}" in arguments or mode == "train"
        assert request.workdir.parts[0] == "runs"
