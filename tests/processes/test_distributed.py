"""Check that a single process works without others, and that processes that cannot connect are reported."""

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
from alexnet_jax.processes.identity import ProcessIdentity

pytest_plugins = ["running"]


def test_a_single_process_is_its_own_leader():
    assert distributed.is_leader() and not distributed.is_multiprocess()
    assert [distributed.broadcast(lambda value=value: value) for value in (None, True, "39", 7)] == [None, True, "39", 7]
    assert distributed.leader_first(lambda: "found") == "found"
    distributed.check_same({"data": "a"})
    distributed.check_mesh(columns.make_mesh(1, 1))  # one of four devices: no process waits for the others
    agreed = distributed.Agreement(columns.make_mesh(2, 2))
    assert [agreed(number) for number in (None, 15, None)] == [None, 15, None]


def test_errors_of_a_single_process_are_unchanged():
    with pytest.raises(UsageError, match="mine"):
        distributed.broadcast(lambda: (_ for _ in ()).throw(UsageError("mine")))
    with pytest.raises(ValueError, match="Gloo"), distributed.detect_peer_loss():
        raise ValueError("Gloo, in the message of a defect")


def test_a_replicated_array_is_on_every_device():
    placement = columns.Columns.over(2, 2)
    array = np.arange(12, dtype=np.uint8).reshape(4, 3)
    replicated = distributed.to_global_array(array, placement.sharding(columns.WHOLE))
    assert replicated.is_fully_replicated and len(replicated.sharding.device_set) == 4
    np.testing.assert_array_equal(jax.device_get(replicated), array)


def test_a_process_0_that_does_not_answer_is_reported():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # but no process listens
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(RunError, match=rf"Process 0 did not answer at {address} within 0.3 s"):
            distributed.join(ProcessIdentity(1, 2, address), timeout=0.3)


def test_a_port_in_use_is_reported():
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
