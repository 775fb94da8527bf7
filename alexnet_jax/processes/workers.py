"""What all worker processes do: they end with the process that started them, and leave signals to it."""

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
from multiprocessing.connection import wait


def initialize_worker(*_: int) -> None:
    """Prepare a worker process. It ignores Ctrl-C, and SIGTERM sent to the group: the process that trains decides."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    open_many_files()
    end_with_parent()


def end_with_parent() -> None:
    """End this process as soon as the process that started it has ended, which may have been killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="parent").start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def open_many_files() -> None:
    """Raise the limit on open files: a shuffled epoch of ImageNet reads 1,088 files, many systems allow 1,024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS names a limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
