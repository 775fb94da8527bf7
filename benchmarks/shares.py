"""How the time of a compiled jax program divides over the named scopes in it."""

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
    """{scope: its part of the time of all operations}, what belongs to none of them under 'rest'.

    `program` is the text of the compiled program, which says in which scope each operation was written. Operations run
    beside each other, so their times add up to more than the time of a step; their parts of the sum are given.
    """
    times = _times(run, steps)
    written = {match["name"]: match["scope"] for match in INSTRUCTION.finditer(program)}
    found = Counter(dict.fromkeys([*scopes, "rest"], 0.0))
    for operation, time in times.items():
        words = re.findall(r"\w+", written.get(operation, ""))
        found[next((scope for scope in scopes if scope in words), "rest")] += time
    total = sum(found.values())
    return {scope: time / total for scope, time in found.items()}


def _times(run: Callable[[], Any], steps: int) -> Counter[str]:
    """{operation of the compiled program: its time}, from jax's own profiler."""
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
