"""A signal is noted at once; where nothing can be lost it ends a process that is deep in a compilation."""

import signal
import subprocess
import sys
import time

import pytest
from running import ROOT

from alexnet_jax.processes.signals import Signals

STUCK = """
import ctypes, sys, threading, time
from alexnet_jax.processes import signals
signals.PATIENCE = 0.5
with signals.Signals() as noted, signals.at_forced_exit(lambda: print("farewell", flush=True)):
    with signals.exit_when_stuck(7):
        print("begun", flush=True)
        if sys.argv[1] == "stuck":  # as in a compilation: no Python runs, and the lock of the interpreter is free
            mutex, library = ctypes.create_string_buffer(128), ctypes.CDLL(None)
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)
        while not noted.came():
            time.sleep(0.01)
    time.sleep(1.5)
print("saved", noted.received, flush=True)
"""


def started(how):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, how], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_cannot_answer_ends_when_nothing_is_lost(number):
    process, begun = started("stuck"), time.monotonic()
    process.send_signal(number)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number and said == "farewell\n" and time.monotonic() - begun < 10
    assert f"Interrupted by {number.name} at step 7, before anything new was to be saved." in told


def test_one_that_answers_is_left_to_save():
    process = started("awake")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == f"saved {signal.SIGTERM:d}\n" and process.returncode == 0


def test_a_second_signal_changes_nothing_but_the_number():
    with Signals() as outer:
        with Signals() as signals:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert signals.came() and signals.received == signal.SIGINT
        assert outer.received == signal.SIGINT
        with Signals() as later:
            assert later.came()  # it came too late for the one before
    with Signals() as signals:
        assert not signals.came()
