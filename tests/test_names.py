"""Check that names of tests have at most 60 characters and are unique in a file, so that none hides another."""

import ast
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.rglob("test_*.py"))
LONGEST = 60


def names(source):
    """Return the names of the test functions in a program, in order."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and "test_" in node.name[:5]
    ]


def test_the_names_of_a_program_are_found():
    assert names("def test_a(): ...\nclass T:\n    def test_b(): ...\ndef other_test_(): ...") == ["test_a", "test_b"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_names_are_short_and_different(file):
    found = names(file.read_text(encoding="utf-8"))
    assert [name for name in found if len(name) > LONGEST] == []
    assert len(found) == len(set(found))
