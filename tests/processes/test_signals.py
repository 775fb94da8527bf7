"""Check that a signal is recorded immediately, and ends a compiling process when no work can be lost."""

import signal
import subprocess
import sys
import time

import pytest
from running import ROOT

from alexnet_jax.processes.signals import Signals

PROGRAM = """
import ctypes, sys, threading, time
from alexnet_jax.processes import signals
with signals.Signals() as received, signals.at_forced_exit(lambda: print("callback", flush=True)):
    with signals.exit_when_stuck(7, patience=0.5 if sys.argv[1] == "stuck" else 60):
        print("begun", flush=True)
        if sys.argv[1] == "stuck":  # as in a compilation: no Python code runs, and the interpreter's lock is free
            mutex, library = ctypes.create_string_buffer(128), ctypes.CDLL(None)
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)
        while not received.interrupted():
            time.sleep(0.01)
    for thread in threading.enumerate():
        if thread.name == "signals":
            thread.join()
print("saved", received.received, flush=True)
"""


def started(how):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_stuck_process_that_loses_nothing(number):
    process = started("stuck")
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and printed == "callback\n"
    assert f"Interrupted by {number.name} at step 7, before there was anything new to save. " in errors
    assert "This command continues from there: " in errors


def test_a_process_that_leaves_in_time_is_left_to_save():
    process = started("awake")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == f"saved {signal.SIGTERM:d}\n" and process.returncode == 0


def test_all_active_contexts_record_the_latest_signal():
    with Signals() as outer:
        with Signals() as inner:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert inner.interrupted() and inner.received == outer.received == signal.SIGINT
        with Signals() as later:
            assert later.interrupted()  # the signal may arrive after the previous context
    with Signals() as independent:
        assert not independent.interrupted()


def test_the_handlers_before_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Signals(), Signals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("delay", [0.3, 2.0])
def test_an_interrupt_during_the_imports_ends_with_a_message(delay, tmp_path):
    command = [sys.executable, "launch.py", "--exp=alexnet_digits", f"--workdir={tmp_path / 'run'}", "--overwrite"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.rstrip().endswith(f"python launch.py --exp=alexnet_digits --workdir={tmp_path / 'run'}")
