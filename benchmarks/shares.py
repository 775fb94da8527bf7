"""The fraction of the time of a compiled jax program that each of its named scopes takes."""

import gzip
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = .*op_name="(?P<scope>[^"]*)"', re.MULTILINE)


def shares(run: Callable[[], Any], program: str, scopes: list[str], steps: int = 3) -> dict[str, float]:
    """Return {scope: fraction of the time of all operations}, with 'rest' for operations outside the scopes.

    `program` is the text of the compiled program, which contains the scope of each operation. Operations overlap, so the sum of
    their times exceeds the time of a step; the fractions are of this sum.
    """
    times = _times(run, steps)
    scope_of = {match["name"]: match["scope"] for match in INSTRUCTION.finditer(program)}
    found = Counter(dict.fromkeys([*scopes, "rest"], 0.0))
    for operation, time in times.items():
        words = re.findall(r"\w+", scope_of.get(operation, ""))
        found[next((scope for scope in scopes if scope in words), "rest")] += time
    total = sum(found.values())
    return {scope: time / total for scope, time in found.items()}


def _times(run: Callable[[], Any], steps: int) -> Counter[str]:
    """Return {operation of the compiled program: time} from jax's profiler."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                jax.block_until_ready(run())
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    times: Counter[str] = Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            times[event["args"]["hlo_op"]] += event["dur"]
    return times
