"""What processes do together: that a single one is left alone, and what is said when they do not meet."""

import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from running import ROOT

from alexnet_jax import columns
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.processes import distributed

pytest_plugins = ["running"]


def test_a_single_process_decides_at_once_and_is_told_nothing():
    assert distributed.is_leader() and not distributed.is_multiprocess()
    assert distributed.broadcast(lambda: 7) == 7
    assert distributed.leader_first(lambda: "found") == "found"
    distributed.check_same({"data": "a"})
    distributed.check_mesh(columns.make_mesh(1, 1))  # one of four devices: nobody waits for the others
    agreed = distributed.Agreement(columns.make_mesh(2, 2))
    assert [agreed(number) for number in (None, 15, None)] == [None, 15, None]


def test_a_single_processs_errors_stay_what_they_are():
    with pytest.raises(UsageError, match="mine"):
        distributed.broadcast(lambda: (_ for _ in ()).throw(UsageError("mine")))
    with pytest.raises(ValueError, match="Gloo"), distributed.detect_peer_loss():
        raise ValueError("Gloo, says a defect of ours")


def test_whole_arrays_are_put_on_every_device():
    placement = columns.Columns.over(2, 2)
    array = np.arange(12, dtype=np.uint8).reshape(4, 3)
    there = distributed.put_whole(array, placement.sharding(columns.WHOLE))
    assert there.is_fully_replicated and len(there.sharding.device_set) == 4
    np.testing.assert_array_equal(jax.device_get(there), array)


def test_a_process_0_that_does_not_answer_is_told(monkeypatch):
    monkeypatch.setattr(distributed, "MEETING", 0.3)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and not listened at
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(RunError, match=rf"Process 0 did not answer at {address} within 0.3 s"):
            distributed._wait_for(address)


def test_a_port_in_use_is_told():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        address = f"127.0.0.1:{held.getsockname()[1]}"
        options = ["--exp=alexnet_digits", "--workdir=runs/none", f"--distributed={address},2,0"]
        run = subprocess.run(
            [sys.executable, "launch.py", *options], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
    assert run.returncode == 1
    assert f"Error: Process 0 cannot listen at {address}" in run.stderr and "another port" in run.stderr
    assert "Traceback" not in run.stderr
