"""Programs timed against each other: each in a separate process, taking turns, never two at the same time."""

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

TURN = 300
"""Milliseconds of a turn: short computations are repeated, dispatched one after another as in a training."""

REST = 0.1
"""Seconds of rest before each turn of a program, in which the threads of the previous program become idle."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of one measurement of one program, one value per round."""

    ms: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.ms)

    @property
    def spread(self) -> float:
        """Half the interquartile range as a fraction of the median."""
        low, _, high = statistics.quantiles(self.ms, n=4) if len(self.ms) > 1 else (0.0, 0.0, 0.0)
        return (high - low) / 2 / self.median


class Rival:
    """A program in a separate process, which is idle between requests."""

    def __init__(self, program: str, job: Job):
        """Start the program and wait until it is compiled. Raises RuntimeError with its error if it ends before."""
        self.program = program
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        command = [sys.executable, "-m", "benchmarks.worker", program, job.size, str(job.batch), job.precision]
        variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the programs share the memory of a GPU
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        first = self._response()
        self.names: list[str] = first["names"]
        self.device: str = first["device"]
        self.operations: int | None = first["operations"]

    def time(self, name: str, times: int = 1) -> float:
        """Return the milliseconds per call, averaged over `times` calls."""
        return self._request(name=name, times=times)["ms"]

    def shares(self) -> dict[str, float]:
        """Return {layer: fraction of the time of a step}; only for the program `ours`."""
        return self._request(name="shares")["shares"]

    def memory(self) -> int:
        """Return the peak resident memory so far, in MiB."""
        return self._request(name="memory")["memory"]

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()
        self._stderr.close()

    def _request(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reported below
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._response()

    def _response(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines() or ["no output"]
        message = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise RuntimeError(f"{self.program} ended with status {status}; its error: {message}")


@contextlib.contextmanager
def started(programs: list[str], job: Job) -> Iterator[dict[str, Rival]]:
    """Yield {program: rival}. Report and skip programs that fail to start, for example without a compiler."""
    rivals: dict[str, Rival] = {}
    try:
        for program in programs:
            print(f"  {program}: compiling", flush=True)
            try:
                rivals[program] = Rival(program, job)
            except RuntimeError as problem:
                print(f"  skipped: {problem}", flush=True)
        yield rivals
    finally:
        for rival in rivals.values():
            rival.end()


def alternate(rivals: dict[str, Rival], name: str, rounds: int) -> dict[str, Times]:
    """Return {program: times}. The programs take turns in every round, so that a slow moment affects all of them."""
    found: dict[str, list[float]] = {program: [] for program in rivals}
    for _ in range(rounds):
        for program, rival in rivals.items():
            time.sleep(REST)
            once = rival.time(name)  # refills the caches after the other programs
            found[program].append(rival.time(name, max(1, round(TURN / once))))
    return {program: Times(ms) for program, ms in found.items()}
