"""The pages of the project, and the commands that stand on them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/*.md", "docs/*.sh", "docs/*.yaml", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
}
"""{path: text} of every page, with the scripts of clusters."""


def commands(page: str) -> list[str]:
    """Return the command lines of Python on a page, in the order in which they stand there, without comments."""
    text = PAGES[page].replace("\\\n", " ")
    if page.endswith(".yaml"):
        text = re.sub(r"\n +- (?!name)", " ", text)  # the command, one word a line
    found = re.findall(r"\bpython (?:launch\.py|-m [\w.]+)[^`#|&\n]*", text)
    return [" ".join(command.split()) for command in found]


def words(command: str) -> list[str]:
    """Return a command's arguments, without `python launch.py` or `python -m MODULE`."""
    _, program, *arguments = shlex.split(command)
    return arguments[1:] if program == "-m" else arguments
