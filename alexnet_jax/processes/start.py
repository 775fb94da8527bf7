"""--processes=N: N processes of one run, started on this machine, watched, and ended together. No jax here, which they start."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from alexnet_jax.errors import RunError
from alexnet_jax.experiment import MeshOptions
from alexnet_jax.processes.identity import ProcessIdentity
from alexnet_jax.processes.workers import end_with_parent


def devices_each(mesh: MeshOptions, count: int) -> int:
    """Devices for each of `count` processes, so that together they have what a mesh asks for."""
    return -(-(mesh.data or 1) * (mesh.column or 1) // count)


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    """Exit status."""
    message: str = ""
    """For the user, on standard error."""
    saved: bool = False
    """It was interrupted, and saved."""
    at_once: bool = False
    """The process must end without waiting for its threads, or for other processes."""
    elsewhere: bool = False
    """It ended because another process of the run did; that one's message says why."""


Command = Callable[[list[str], ProcessIdentity], Outcome]
"""What a process does with a command line; a function of a module, so that another process can import it."""

SAVING = 30.0
"""Seconds that are left to the others once a process was interrupted and has saved: all save together."""
SETTLING = 1.0
"""Seconds until the others are ended once a process failed: one that failed before it may not have ended yet."""


def start(command: Command, arguments: list[str], count: int, each: int) -> Outcome:
    """Run a command line in `count` processes of this machine, each with `each` devices of its own, and wait for all.

    SIGINT and SIGTERM are handed on to them, so that they save. When one fails, the others are ended: they could only wait
    for it. All end when this process does, however it ends.
    """
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="alexnet_jax-") as folder:
        identities = [ProcessIdentity(i, count, address, tuple(range(i * each, (i + 1) * each))) for i in range(count)]
        members = [_Member(command, arguments, identity, Path(folder) / f"process-{identity.index}") for identity in identities]
        with _handed_on(members) as received:
            for member in members:
                member.process.start()
            for number in received:  # while not all of them were there
                _send(members, number)
            _wait(members)
        return _verdict(members, received)


class _Member:
    """One of the processes, as the one that started them sees it."""

    def __init__(self, command: Command, arguments: list[str], identity: ProcessIdentity, log: Path):
        context = multiprocessing.get_context("spawn")
        self._reports, theirs = context.Pipe(duplex=False)
        self.identity, self.log = identity, log
        self.process = context.Process(target=_begin, args=(command, arguments, identity, log, theirs))
        self.ended_by_us = False

    def status(self) -> int | None:
        """Exit status, negative after a signal; None while it runs."""
        return self.process.exitcode

    def outcome(self) -> Outcome | None:
        """What it reported; None: it could not."""
        try:
            return self._reports.recv() if self._reports.poll() else None
        except EOFError:
            return None


def _begin(command: Command, arguments: list[str], process: ProcessIdentity, log: Path, reports: Connection) -> None:
    """The first thing in each of them. Ctrl-C is for the process that started them, which hands it on."""
    os.setpgid(0, 0)
    end_with_parent()
    if process.index:  # its warnings are those of process 0
        with open(log, "wb") as file:
            os.dup2(file.fileno(), 2)
    outcome = command(arguments, process)
    reports.send(outcome)
    leave(outcome)


def leave(outcome: Outcome) -> NoReturn:
    """End this process with its status."""
    sys.stdout.flush()
    sys.stderr.flush()
    if outcome.at_once:
        os._exit(outcome.status)
    sys.exit(outcome.status)


@contextlib.contextmanager
def _handed_on(members: list[_Member]) -> Iterator[list[int]]:
    """Within it SIGINT and SIGTERM go to all of them; gives the list of those received."""
    received: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _send(members, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(members: list[_Member], number: int) -> None:
    for member in members:
        if member.process.pid is not None and member.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.process.pid, number)


def _wait(members: list[_Member]) -> None:
    """Until all have ended, by themselves, or ended by us after one failed."""
    running, end = list(members), None
    while running:
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            break
        wait([member.process.sentinel for member in running], left)
        ended = [member for member in running if member.status() is not None]
        running = [member for member in running if member not in ended]
        if end is None and any(member.status() for member in ended):
            saved = all(member.status() in (128 + signal.SIGINT, 128 + signal.SIGTERM) for member in ended)
            end = time.monotonic() + (SAVING if saved else SETTLING)
    for member in running:
        member.ended_by_us = True
        member.process.kill()
        member.process.join()


def _verdict(members: list[_Member], received: list[int]) -> Outcome:
    """One outcome of all: of those that ended by themselves, and not well, the one that says why."""
    failed = [(member, member.outcome()) for member in members if member.status() and not member.ended_by_us]
    if not failed:
        return Outcome(0)
    told = [outcome for _, outcome in failed if outcome is not None]
    silent = [member for member, outcome in failed if outcome is None]
    for outcome in told:
        if outcome.saved:
            return outcome
    for number in received:  # there was nothing to save yet; process 0 may have said so itself
        if any(member.status() in (-number, 128 + number) for member in silent):
            said = any(member.status() == 128 + number and member.identity.index == 0 for member in silent)
            return Outcome(128 + number, "" if said else INTERRUPTED)
    # What a process tells may come of another one's death, and jax aborts a process that lost another.
    for member in silent:
        if member.status() != -signal.SIGABRT:
            return _unexpected(member, len(members))
    for outcome in told:
        if not outcome.elsewhere:
            return outcome
    return _unexpected(silent[0], len(members)) if silent else told[0]


INTERRUPTED = "Interrupted. What had been saved is safe; the same command goes on from there."


def _unexpected(member: _Member, count: int) -> Outcome:
    status = member.status() or 0
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = " Was it killed for memory?" if status == -signal.SIGKILL else ""
    said = member.log.read_text(errors="replace").strip() if member.log.exists() else ""
    tail = "".join(f"\n  {line}" for line in said.splitlines()[-8:])
    return Outcome(
        RunError.exit_status,
        f"Error: Process {member.identity.index} of {count} {how}, so the others were ended too.{hint} What had been saved is "
        f"safe; the same command goes on from there.{tail}",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
