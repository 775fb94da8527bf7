"""Check the outcome of a run of several processes, computed from the ends of its processes."""

import signal
import sys

import pytest

from alexnet_jax.processes.outcome import INTERRUPTED, Cause, End, Outcome, resume_command, verdict

SAVED = Outcome(143, "Interrupted and saved.", Cause.SAVED)
WRONG = Outcome(2, "Error: one thing is wrong.", Cause.FAILED)
FAILED = Outcome(1, "Error: could not save.", Cause.FAILED)
LOST = Outcome(1, "Error: another process was lost.", Cause.PEER_LOST)
CTRL_C = Outcome(130, f"\n{INTERRUPTED}", Cause.INTERRUPTED)

KILL, ABORT, TERM = -signal.SIGKILL, -signal.SIGABRT, -signal.SIGTERM

REPORTED = [
    ((WRONG, "killed"), WRONG),
    (("killed", WRONG), WRONG),
    ((LOST, WRONG), WRONG),
    ((ABORT, WRONG), WRONG),
    ((WRONG, FAILED), WRONG),
    ((LOST, LOST), LOST),
    ((SAVED, SAVED), SAVED),
    ((KILL, SAVED), SAVED),
    ((WRONG, SAVED), SAVED),
    ((TERM, SAVED), SAVED),
    ((CTRL_C, LOST), CTRL_C),
    ((Outcome(0), WRONG), WRONG),
]
"""((end of process 0, end of process 1), outcome). An end is an outcome, an exit status, or "killed" by `start`."""

SILENT = [
    ((KILL, "killed"), "Error: Process 0 of 2 was ended by SIGKILL, so"),
    ((FAILED, KILL), "Error: Process 1 of 2 was ended by SIGKILL, so"),
    ((LOST, KILL), "Error: Process 1 of 2 was ended by SIGKILL, so"),
    ((ABORT, KILL), "Error: Process 1 of 2 was ended by SIGKILL, so"),
    ((ABORT, LOST), "Error: Process 0 of 2 was ended by SIGABRT, so"),
    ((ABORT, ABORT), "Error: Process 0 of 2 was ended by SIGABRT, so"),
    ((LOST, 1), "Error: Process 1 of 2 ended with status 1, so"),
    ((TERM, "killed"), "Error: Process 0 of 2 was ended by SIGTERM, so"),  # sent to this process only, not forwarded
]
"""((end of process 0, end of process 1), beginning of the message)."""

FORWARDED = [
    ((TERM, TERM), [signal.SIGTERM], 143, INTERRUPTED),
    ((TERM, KILL), [signal.SIGTERM], 143, INTERRUPTED),
    ((TERM, 143), [signal.SIGTERM], 143, INTERRUPTED),
    ((143, TERM), [signal.SIGTERM], 143, ""),
    ((143, "killed"), [signal.SIGINT, signal.SIGTERM], 143, ""),
    ((130, 130), [signal.SIGINT], 130, ""),
    ((FAILED, TERM), [signal.SIGTERM], 143, INTERRUPTED),
    ((SAVED, TERM), [signal.SIGTERM], 143, SAVED.message),
]
"""((end of process 0, end of process 1), forwarded signals, status, message)."""


def ends(*found):
    def end(index, one):
        if one == "killed":
            return End(index, KILL, killed=True)
        return End(index, one.status, one) if isinstance(one, Outcome) else End(index, one, errors="a warning\nlast\n")

    return [end(index, one) for index, one in enumerate(found)]


def test_the_command_that_resumes_has_no_overwrite(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launch.py", "--exp=a b", "--overwrite=yes", "--overwrite"])
    assert resume_command() == "This command continues from there: python launch.py '--exp=a b'"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/alexnet-jax"])
    assert resume_command(["--overwrite", "--exp=a"]).endswith(": alexnet-jax --exp=a")


def test_without_a_failure_the_run_succeeded():
    assert verdict(ends(Outcome(0), Outcome(0)), []) == Outcome(0)
    assert verdict(ends(Outcome(0), "killed"), [signal.SIGTERM]) == Outcome(0)


@pytest.mark.parametrize(("both", "expected"), REPORTED)
def test_the_report_nearest_to_the_cause_counts(both, expected):
    assert verdict(ends(*both), [signal.SIGTERM] if SAVED in both else []) is expected


@pytest.mark.parametrize(("both", "begin"), SILENT)
def test_a_silent_end_is_reported_with_its_last_lines(both, begin):
    outcome = verdict(ends(*both), [])
    assert outcome.message.startswith(begin) and outcome.message.endswith(f"{resume_command()}\n  a warning\n  last")
    assert outcome.status == 1 and outcome.cause is Cause.FAILED
    assert ("out of memory" in outcome.message) == ("SIGKILL" in begin)


@pytest.mark.parametrize(("both", "signals", "status", "message"), FORWARDED)
def test_a_forwarded_signal_that_ended_a_process(both, signals, status, message):
    outcome = verdict(ends(*both), signals)
    assert (outcome.status, outcome.message) == (status, message)
