"""What worker processes have in common: they end with the process that started them, and leave signals to it."""

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
from multiprocessing.connection import wait


def begin(*_: int) -> None:
    """First thing in a worker. Ctrl-C, and SIGTERM to a group, reach all its processes: the one that trains decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    open_many_files()
    end_with_parent()


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended: killed, it could not tell us to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="parent").start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def open_many_files() -> None:
    """ImageNet has 1,088 record files, all of them open in a shuffled epoch; many systems allow 1,024 unless asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS names a limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
