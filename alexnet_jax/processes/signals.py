"""SIGINT and SIGTERM while a run trains: noted at once, answered where nothing is lost by it."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

PATIENCE = 5.0
"""Seconds that a signal waits for the first step, which may be compiled for minutes, before the process ends without it."""


class Signals:
    """Within it SIGINT and SIGTERM only set `received`; the loop looks at it after every step and every batch.

    One within another shares what was received: a sweep stops after a trial that a signal came too late to stop. `agree`
    makes of the number that one process received, or None, what all processes of a run act on (distributed.Agreement).
    """

    def __init__(self, agree: Callable[[int | None], int | None] = lambda number: number) -> None:
        self._agree = agree
        self.received: int | None = None
        self._outer: Signals | None = None

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        outer = getattr(self._before[signal.SIGTERM], "__self__", None)
        if isinstance(outer, Signals):
            self._outer, self.received = outer, outer.received
        return self

    def came(self) -> bool:
        """Whether one was received, by any process of the run: the others must ask as often."""
        agreed = self._agree(self.received)
        if agreed is not None:
            self.received = agreed
        return agreed is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self._outer is not None:
            self._outer._note(number, frame)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


_farewells: list[Callable[[], None]] = []


@contextlib.contextmanager
def at_forced_exit(action: Callable[[], None]) -> Iterator[None]:
    """Within it `action` is done before a process ends as `exit_when_stuck` says, where no `finally` is reached."""
    _farewells.append(action)
    try:
        yield
    finally:
        _farewells.remove(action)


@contextlib.contextmanager
def exit_when_stuck(step: int) -> Iterator[None]:
    """While all is saved, up to `step`: a signal that is not answered within PATIENCE ends the process.

    Python runs a handler between two of its own instructions, and a long compilation is none. Its C handler writes the
    signal's number to a socket at once, and another thread reads that.
    """
    left, (woken, wakes) = threading.Event(), socket.socketpair()
    wakes.setblocking(False)
    before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(woken, left, step), daemon=True, name="signals").start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        left.set()
        wakes.close()


def _watch(woken: socket.socket, left: threading.Event, step: int) -> None:
    with woken:
        while number := woken.recv(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not left.wait(PATIENCE):
                told = f"\nInterrupted by {signal.Signals(number[0]).name} at step {step}, before anything new was to be saved."
                print(f"{told} The same command goes on from there.", file=sys.stderr, flush=True)
                for action in _farewells:
                    action()
                os._exit(128 + number[0])
