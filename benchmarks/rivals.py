"""Programs that are timed against each other in one run: each in its own process, all alternating, never two at once."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sizes import Job

ROOT = Path(__file__).resolve().parents[1]

REST = 0.1
"""Seconds before a program's turn, in which the threads of the one before go to sleep."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of one thing in one program, over all rounds."""

    ms: list[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.ms)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a fraction of the median."""
        low, _, high = statistics.quantiles(self.ms, n=4) if len(self.ms) > 1 else (0.0, 0.0, 0.0)
        return (high - low) / 2 / self.median


class Rival:
    """One program in its process. It idles but while it is asked."""

    def __init__(self, program: str, job: Job):
        """Start it, and wait until it is compiled and warm. Raises RuntimeError with what it said when it could not."""
        self.program = program
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        command = [sys.executable, "-m", "benchmarks.worker", program, job.size, str(job.batch), job.precision]
        variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # they share the memory of a GPU
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        first = self._answer()
        self.names: list[str] = first["names"]
        self.device: str = first["device"]
        self.operations: int | None = first["operations"]

    def time(self, name: str, times: int = 1) -> float:
        """Milliseconds of one call, from so many that are waited for together."""
        return self._ask(name=name, times=times)["ms"]

    def shares(self) -> dict[str, float]:
        """{layer: its part of a step's time}; only the program `ours` knows it."""
        return self._ask(name="shares")["shares"]

    def memory(self) -> int:
        """The largest resident memory it had so far, in MiB."""
        return self._ask(name="memory")["memory"]

    def end(self) -> None:
        """Stop it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is told below
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines() or ["nothing"]
        telling = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise RuntimeError(f"{self.program} ended with status {status}; it said: {telling}")


@contextlib.contextmanager
def started(programs: list[str], job: Job) -> Iterator[dict[str, Rival]]:
    """{program: it}, of those that start; one that cannot, a compiler missing say, is told of and left out."""
    rivals: dict[str, Rival] = {}
    try:
        for program in programs:
            print(f"  {program}: compiling", flush=True)
            try:
                rivals[program] = Rival(program, job)
            except RuntimeError as problem:
                print(f"  left out: {problem}", flush=True)
        yield rivals
    finally:
        for rival in rivals.values():
            rival.end()


def alternate(rivals: dict[str, Rival], name: str, rounds: int, times: int = 1) -> dict[str, Times]:
    """{program: its times}: every round asks each of them in turn, so that a slow moment of the machine meets them all."""
    found: dict[str, list[float]] = {program: [] for program in rivals}
    for _ in range(rounds):
        for program, rival in rivals.items():
            time.sleep(REST)
            rival.time(name)  # its memory has been out of the caches while others computed
            found[program].append(rival.time(name, times))
    return {program: Times(ms) for program, ms in found.items()}
