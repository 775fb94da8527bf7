"""--processes=N: start N processes of one run on this machine, watch them and end them together.

jax is not imported here: the processes started here import it.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType

from alexnet_jax.experiment import MeshOptions
from alexnet_jax.processes.identity import ProcessIdentity
from alexnet_jax.processes.outcome import End, Outcome, leave, verdict
from alexnet_jax.processes.workers import end_with_parent

Command = Callable[[list[str], ProcessIdentity], Outcome]
"""Runs a command line in one process of a run. A function of a module, so that the started process can import it."""

SAVING = 30.0
"""Seconds that the other processes have to end after one was interrupted and has saved: all of them save together."""
SETTLING = 1.0
"""Seconds that the other processes have to end after one failed: the one that failed first may end later."""


def devices_per_process(mesh: MeshOptions, processes: int) -> int:
    """Return the number of devices that each process needs so that all of them together have those of the mesh."""
    return -(-(mesh.data or 1) * (mesh.column or 1) // processes)


def start(command: Command, arguments: list[str], count: int, devices: int) -> Outcome:
    """Run a command line in `count` processes of this machine, each with `devices` devices of its own, and wait for them.

    SIGINT and SIGTERM are forwarded to the processes, which then save. When one process fails, the others are killed, since
    they could only wait for it. All of them end when this process ends, however it ends.
    """
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="alexnet_jax-") as folder:
        identities = [
            ProcessIdentity(i, count, address, tuple(range(i * devices, (i + 1) * devices))) for i in range(count)
        ]
        members = [_Member(command, arguments, identity, Path(folder)) for identity in identities]
        with _forward_signals(members) as received:
            for member in members:
                member.process.start()
            for number in received:  # those that arrived before all processes had started
                _send(members, number)
            _wait(members)
        return verdict([member.end() for member in members], received)


class _Member:
    """One of the processes, as seen by the process that started it."""

    def __init__(self, command: Command, arguments: list[str], identity: ProcessIdentity, folder: Path):
        context = multiprocessing.get_context("spawn")
        self._reports, reports = context.Pipe(duplex=False)
        self._identity, self._log = identity, folder / f"process-{identity.index}"
        self.process = context.Process(target=_begin, args=(command, arguments, identity, self._log, reports))
        self.killed = False

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.process.join()

    def end(self) -> End:
        """Return how the process ended."""
        status, reported = self.process.exitcode, None
        assert status is not None
        with contextlib.suppress(EOFError):  # it ended without a report
            reported = self._reports.recv() if self._reports.poll() else None
        errors = self._log.read_text(errors="replace") if self._log.exists() else ""
        return End(self._identity.index, status, reported, self.killed, errors)


def _begin(
    command: Command, arguments: list[str], identity: ProcessIdentity, log: Path, reports: Connection
) -> None:
    """Run the command in a started process, report its outcome and exit with its status."""
    os.setpgid(0, 0)  # Ctrl-C in a terminal reaches only the process that started this one, which forwards it
    end_with_parent()
    if identity.index:  # its warnings repeat those of process 0
        with open(log, "wb") as file:
            os.dup2(file.fileno(), 2)
    outcome = command(arguments, identity)
    reports.send(outcome)
    leave(outcome)


@contextlib.contextmanager
def _forward_signals(members: Sequence[_Member]) -> Iterator[list[int]]:
    """Forward SIGINT and SIGTERM to the members, and give the list of those received, which grows meanwhile."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _send(members, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(members: Sequence[_Member], number: int) -> None:
    for member in members:
        if member.process.pid is not None and member.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.process.pid, number)


def _wait(members: Sequence[_Member]) -> None:
    """Wait for all members; once one failed, kill those that do not end within SETTLING, or SAVING after a signal."""
    running, deadline = list(members), None
    while running:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        wait([member.process.sentinel for member in running], left)
        statuses = [member.process.exitcode for member in members]
        running = [member for member, status in zip(members, statuses, strict=True) if status is None]
        failures = {status for status in statuses if status}
        if failures and deadline is None:
            saved = failures <= {128 + signal.SIGINT, 128 + signal.SIGTERM}
            deadline = time.monotonic() + (SAVING if saved else SETTLING)
    for member in running:
        member.kill()


def free_port() -> int:
    """Return a port of this machine on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
