"""The pages of the project, and the commands that they contain."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "docs/*.sh", "docs/*.yaml", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
}
"""{path: text} of every page, including the cluster scripts."""


def commands(page: str) -> list[str]:
    """Return the Python command lines on a page, in their order, without comments."""
    text = PAGES[page].replace("\\\n", " ")
    if page.endswith(".yaml"):
        text = re.sub(r"\n +- (?!name)", " ", text)  # a command with one word per line
    found = re.findall(r"\bpython (?:launch\.py|-m [\w.]+)[^`#|&\n]*", text)
    return [" ".join(command.split()) for command in found]


def words(command: str) -> list[str]:
    """Return a command's arguments, without `python launch.py` or `python -m MODULE`."""
    _, program, *arguments = shlex.split(command)
    return arguments[1:] if program == "-m" else arguments
