"""SIGINT and SIGTERM during a run: recorded at once, and acted upon where nothing is lost."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

from alexnet_jax.processes.outcome import resume_command

PATIENCE = 5.0
"""Seconds that a signal waits for the first step, which may take minutes to compile, before the process exits without it."""


class Signals:
    """A context in which SIGINT and SIGTERM are only recorded in `received`; the training loop asks after every step and batch.

    A signal is recorded by all contexts that are active. A context entered later begins with it, so that a sweep stops after a
    trial that was too close to its end to be interrupted.
    """

    def __init__(self, agree: Callable[[int | None], int | None] = lambda number: number) -> None:
        """Create a context. `agree` makes one number of those that the processes of a run received: distributed.Agreement."""
        self._agree = agree
        self.received: int | None = None

    def __enter__(self) -> "Signals":
        if _state.contexts:
            self.received = _state.contexts[-1].received
        _state.contexts.append(self)
        try:
            self._before = {number: signal.signal(number, _record) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # in another thread than the main one
            _state.contexts.remove(self)
            raise
        return self

    def interrupted(self) -> bool:
        """Return whether a process of the run received a signal. All processes must call this equally often."""
        agreed = self._agree(self.received)
        if agreed is not None:
            self.received = agreed
        return agreed is not None

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _state.contexts.remove(self)


@dataclass(frozen=True)
class _State:
    """What the contexts of this module share, because a signal and an exit concern the process as a whole."""

    contexts: list[Signals] = field(default_factory=list)
    """Active contexts, the outermost first."""
    exit_callbacks: list[Callable[[], None]] = field(default_factory=list)
    """Functions to call before `exit_when_stuck` ends the process, the outermost first."""


_state = _State()


def _record(number: int, frame: FrameType | None) -> None:
    for context in _state.contexts:
        context.received = number


@contextlib.contextmanager
def at_forced_exit(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` if `exit_when_stuck` ends the process within this context: no `finally` is reached then."""
    _state.exit_callbacks.append(callback)
    try:
        yield
    finally:
        _state.exit_callbacks.remove(callback)


@contextlib.contextmanager
def exit_when_stuck(step: int, patience: float = PATIENCE) -> Iterator[None]:
    """End the process if this context lasts for `patience` seconds after a signal. Everything up to `step` must be saved.

    Python runs signal handlers between two bytecodes, which a long compilation does not reach. Its handler in C writes the
    number of the signal to a socket at once, and a thread reads it from there.
    """
    left, (reading, writing) = threading.Event(), socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, left, step, patience), daemon=True, name="signals").start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        left.set()
        writing.close()


def _watch(reading: socket.socket, left: threading.Event, step: int, patience: float) -> None:
    with reading:
        while received := reading.recv(1):
            number = received[0]
            if number in (signal.SIGINT, signal.SIGTERM) and not left.wait(patience):
                begin = "\r\x1b[K" if sys.stderr.isatty() else "\n"  # clears the line of the bar, with the ^C on it
                print(
                    f"{begin}Interrupted by {signal.Signals(number).name} at step {step}, before there was anything new to save. "
                    f"{resume_command()}",
                    file=sys.stderr,
                    flush=True,
                )
                for callback in reversed(_state.exit_callbacks):
                    callback()
                os._exit(128 + number)
