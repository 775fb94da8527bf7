"""What the processes of one run do together, through jax.distributed. Every function also works in a single process.

Process 0, the leader, decides, writes and prints. All processes must make the calls of this module in the same order.
"""

import contextlib
import hashlib
import itertools
import os
import pickle
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import multihost

from alexnet_jax.errors import PeerLost, RunError, UsageError, first_line
from alexnet_jax.processes.identity import LOCAL, ProcessIdentity
from alexnet_jax.processes.platforms import check_platforms

START_TIMEOUT = 300
"""Seconds that the processes of a run wait for each other at its start."""

LEADER_TIMEOUT = 7 * 24 * 3600
"""Seconds that the other processes wait for process 0 in `broadcast`: measuring a large data set may take hours."""

T = TypeVar("T")


def join(process: ProcessIdentity, timeout: float = START_TIMEOUT) -> None:
    """Connect this process to the other processes of the run. Call it before jax first uses a device.

    Raise RunError if process 0 cannot listen or does not answer within `timeout` seconds. If other processes are missing by
    then, this process ends with a message: jax would abort it.
    """
    options = {}
    if process.address is not None:
        host, port = process.address.rsplit(":", 1)
        options = {
            "coordinator_address": process.address,
            "num_processes": process.count,
            "process_id": process.index,
            "local_device_ids": process.devices,
            "cluster_detection_method": "deactivate",
            "coordinator_bind_address": process.address if host in LOCAL else None,
        }
        if process.index:
            _wait_for(process.address, timeout)
        else:
            _check_free(process.address, host.strip("[]") if host in LOCAL else "", int(port))
    if process.devices is None:
        print(f"{_waiting(process)} for at most {timeout:g} s. {ALONE}", flush=True)
    # jax's own handler of SIGTERM would withhold the signal from this process and, before training, from everyone.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _end_after(timeout, process):
            jax.distributed.initialize(initialization_timeout=int(timeout) + GRACE, **options)
    except Exception as problem:  # of several types: a port in use, a cluster that does not answer
        where = "in the cluster" if process.address is None else f"at {process.address}"
        raise RunError(
            f"Process {process.index} could not connect to the other processes {where} ({first_line(problem)}). Give the "
            f"address of process 0 explicitly: --distributed=HOST:PORT,N,I. {ALONE}"
        ) from problem
    check_platforms()  # before jax uses a device
    broadcast(lambda: None)  # the first exchange between all devices, see `connect`


GRACE = 60
"""Seconds after `timeout` at which jax would abort the process."""

ALONE = "To train in this process alone, as in an interactive shell of a cluster, add --distributed=off."


def _waiting(process: ProcessIdentity) -> str:
    """Return which processes a process waits for."""
    if process.count is None:
        return f"Process {process.index} waits for the other processes of this run"
    others = [str(index) for index in range(process.count) if index != process.index]
    listed = others if len(others) <= 4 else [*others[:2], "...", others[-1]]
    plural = "es" if len(others) > 1 else ""
    return f"Process {process.index} of {process.count} waits for process{plural} {', '.join(listed)}"


@contextlib.contextmanager
def _end_after(timeout: float, process: ProcessIdentity) -> Iterator[None]:
    """End this process with a message unless the block ends within `timeout` seconds: nothing can interrupt jax in it."""

    def end() -> None:
        message = f"Error: {_waiting(process)}, and not all of them were started within {timeout:g} s. {ALONE}"
        print(message, file=sys.stderr, flush=True)
        os._exit(RunError.exit_status)

    timer = threading.Timer(timeout, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_free(address: str, host: str, port: int) -> None:
    """Raise RunError if process 0 cannot listen at its address, where jax would crash."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as problem:
        raise RunError(
            f"Process 0 cannot listen at {address} ({problem}). Choose another port in --distributed=HOST:PORT,N,I."
        ) from problem


def _wait_for(address: str, timeout: float) -> None:
    """Wait until process 0 listens. jax would end this process without a message that helps."""
    host, port = address.rsplit(":", 1)
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            return
        except OSError as problem:
            if time.monotonic() > end:
                raise RunError(
                    f"Process 0 did not answer at {address} within {timeout:g} s ({problem}). Was it started on that host, "
                    f"with the same address? Is the port open? {ALONE}"
                ) from problem
            time.sleep(0.2)


def is_multiprocess() -> bool:
    """Return whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_leader() -> bool:
    """Return whether this process decides, writes and prints: process 0, or the only one."""
    return not is_multiprocess() or jax.process_index() == 0


@contextlib.contextmanager
def detect_peer_loss() -> Iterator[None]:
    """Raise PeerLost instead of what jax raises when another process is lost. A single process raises what it raises."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as problem:  # failures of gloo have either type
        if not is_multiprocess() or (isinstance(problem, ValueError) and "gloo" not in str(problem).lower()):
            raise
        raise PeerLost(
            f"Process {jax.process_index()} stopped: another process of this run was lost, or the devices failed "
            f"({first_line(problem)}). What had been saved is safe; started again, all processes continue from there."
        ) from problem


def connect(mesh: Mesh) -> None:
    """Make the devices along each axis of the mesh, and all of its devices, exchange data for the first time.

    gloo gives up a new group of devices if its processes begin their first exchange more than 30 s apart, which happens when
    one of them compiles the first step longer than another. In later exchanges it waits.
    """
    if not is_multiprocess():
        return
    multihost_utils.sync_global_devices("connect")
    names = mesh.axis_names
    for axes in (*((name,) for name in names), names):
        kept = P(*(name for name in names if name not in axes))
        total = jax.shard_map(
            lambda x, axes=axes: jax.lax.psum(x.sum(), axes)[None], mesh=mesh, in_specs=P(names), out_specs=kept
        )
        ones = to_global_array(np.ones(mesh.size, np.float32), NamedSharding(mesh, P(names)))
        jax.block_until_ready(jax.jit(total)(ones))


_calls = itertools.count()


def broadcast(work: Callable[[], T]) -> T:
    """Run `work` on process 0 and broadcast its result, which may be any value that can be pickled.

    Raise on process 0 what `work` raises, and PeerLost on the other processes.
    """
    if not is_multiprocess():
        return work()
    message, problem = b"", None  # an empty message says that `work` failed: no pickle is empty
    if is_leader():
        try:
            message = pickle.dumps(work())
        except Exception as caught:  # noqa: BLE001 - raised again below, after the other processes were informed
            problem = caught
    multihost.get_barrier_sync_fn()(key=f"broadcast-{next(_calls)}", timeout_ms=1000 * LEADER_TIMEOUT)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    if problem is not None:
        raise problem
    if length == 0:
        raise PeerLost(f"Process {jax.process_index()} stopped because process 0 did; the message of process 0 says why.")
    padded = np.frombuffer(message.ljust(length, b"\0"), np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def leader_first(work: Callable[[], T]) -> T:
    """Run `work` on process 0, then on the other processes, which find what it downloaded or measured; return the result."""
    results: list[T] = []
    broadcast(lambda: results.append(work()))
    return results[0] if results else work()


def check_same(values: dict[str, str]) -> None:
    """Raise UsageError on all processes unless each of the values {name: value} is the same on all of them."""
    if not is_multiprocess():
        return
    digests = np.array([list(hashlib.sha256(value.encode()).digest()) for value in values.values()], np.uint8)
    every = multihost_utils.process_allgather(digests)
    for number, name in enumerate(values):
        differing = [index for index, other in enumerate(every) if (other[number] != every[0][number]).any()]
        if differing:
            raise UsageError(
                f"Process {differing[0]} was started with other {name} than process 0. All processes of a run need the same."
            )


def check_mesh(mesh: Mesh) -> None:
    """Raise UsageError unless the mesh contains all devices of all processes: a process without one could only wait."""
    if is_multiprocess() and mesh.size != jax.device_count():
        shape = " ".join(f"--mesh.{name}={size}" for name, size in mesh.shape.items())
        raise UsageError(
            f"{shape} has {mesh.size} of the {jax.device_count()} devices of {jax.process_count()} processes; expected all. "
            "Leave both options out, or start another number of processes."
        )


def to_global_array(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Return `array`, of which every process holds all elements, as an array on the devices of all processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


class Agreement:
    """Agree on a number, such as that of a received signal, on which all processes must act at the same step.

    All processes call this once a step with their own numbers, and all get the largest number of the call `LAG` steps earlier,
    which is known by then, so that none of them waits. A single process gets its own number at once.
    """

    LAG = 2

    def __init__(self, mesh: Mesh):
        self._pending: deque[jax.Array] = deque()
        self._multiprocess = is_multiprocess()
        if self._multiprocess:
            every = Mesh(mesh.devices.reshape(-1), "every")
            self._own, self._devices = NamedSharding(every, P("every")), len(every.local_devices)
            self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(every, P()))

    def __call__(self, number: int | None) -> int | None:
        """Return the number agreed on; None, which is exchanged as 0, if no process has one."""
        if not self._multiprocess:
            return number
        own = np.full(self._devices, number or 0, np.int32)
        self._pending.append(self._largest(jax.make_array_from_process_local_data(self._own, own)))
        return (int(self._pending.popleft()) or None) if len(self._pending) > self.LAG else None
