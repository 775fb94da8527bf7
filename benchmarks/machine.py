"""The machine that a benchmark runs on: its processor and caches, and whether it was quiet."""

import os
import platform
import re
from pathlib import Path
from typing import TypedDict

VECTORS = ("amx_tile", "avx512_bf16", "avx512f", "avx2", "asimd")
"""Vector instructions that decide about the speed of products, the best first, by their names in /proc/cpuinfo."""

QUIET_LOAD = 0.3
"""Largest load average per core, before the benchmark starts, of a machine that counts as quiet."""

STEADY = 0.1
"""Largest difference between the speeds of the matrix product at the start and at the end, as a fraction."""


class Machine(TypedDict):
    """What a benchmark's figures depend on besides the program."""

    processor: str
    cores: int
    vectors: str
    caches: dict[str, str]  # {'L2': '1024K', ...} of the first core
    load: float  # load average of the last minute before the start, per core


def describe() -> Machine:
    """Return what the operating system knows of this machine; on other systems than Linux, its processor and cores."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = set(re.findall(r"\w+", " ".join(re.findall(r"^(?:flags|Features)\s*:.*$", text, re.MULTILINE)[:1])))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor=model[1] if model else platform.processor() or platform.machine(),
        cores=cores,
        vectors=next((name for name in VECTORS if name in flags), "unknown"),
        caches=_caches(),
        load=os.getloadavg()[0] / cores,
    )


def _caches() -> dict[str, str]:
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (cache / "type").read_text().strip() != "Instruction":
            found["L" + (cache / "level").read_text().strip()] = (cache / "size").read_text().strip()
    return found


def disturbance(machine: Machine, start: float, end: float) -> str | None:
    """Return why figures are not settled, from the speeds of the matrix product at the start and at the end; None if quiet."""
    reasons = []
    if machine["load"] > QUIET_LOAD:
        reasons.append(f"the load average was {machine['load']:.2f} per core at the start")
    if abs(start - end) > STEADY * max(start, end):
        reasons.append(f"the matrix product ran at {start:,.0f} GFLOP/s at the start and at {end:,.0f} at the end")
    return " and ".join(reasons) or None
