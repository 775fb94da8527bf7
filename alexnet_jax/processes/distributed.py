"""What the processes of one run do together, through jax.distributed; each function works for a single process too.

Process 0 decides and writes. Nothing here is needed, and nothing is slower, where there is one process.
"""

import contextlib
import hashlib
import itertools
import pickle
import socket
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

MEETING = 300
"""Seconds that the processes of a run wait for each other at its start."""

T = TypeVar("T")


def join(process: ProcessIdentity) -> None:
    """Meet the other processes of the run, before jax's first use of a device.

    Raises RunError when process 0 cannot listen or does not answer. jax itself ends process 0 (SIGABRT) when others are
    missing after MEETING seconds.
    """
    # jax's own handler of SIGTERM would keep it from whoever is to be told: before training the process itself.
    jax.config.update("jax_enable_preemption_service", False)
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
            _wait_for(process.address)
        else:
            _check_free(process.address, host.strip("[]") if host in LOCAL else "", int(port))
    if process.index == 0 and process.devices is None:
        print(f"Process 0 of {process.count or 'several'} waits for the others, for at most {MEETING} s.", flush=True)
    try:
        jax.distributed.initialize(initialization_timeout=MEETING, **options)
    except Exception as problem:  # of several types: a port in use, a cluster that does not answer
        what = "in the cluster" if process.address is None else f"at {process.address}"
        raise RunError(
            f"Process {process.index} could not meet the others {what} ({first_line(problem)}). Say by hand where process 0 "
            "listens: --distributed=HOST:PORT,N,I."
        ) from problem
    broadcast(lambda: None)  # the first exchange between all devices; see `connect`


def _check_free(address: str, host: str, port: int) -> None:
    """jax would crash where it cannot listen."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as problem:
        raise RunError(
            f"Process 0 cannot listen at {address} ({problem}). Choose another port in --distributed=HOST:PORT,N,I."
        ) from problem


def _wait_for(address: str) -> None:
    """Until process 0 listens: jax would end this process without a word that helps."""
    host, port = address.rsplit(":", 1)
    end = time.monotonic() + MEETING
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            return
        except OSError as problem:
            if time.monotonic() > end:
                raise RunError(
                    f"Process 0 did not answer at {address} within {MEETING} s ({problem}). Was it started, with this address "
                    "and on that host? Is the port open?"
                ) from problem
            time.sleep(0.2)


def is_multiprocess() -> bool:
    """Whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_leader() -> bool:
    """Whether this is the process that decides, writes and prints: process 0, or the only one."""
    return not is_multiprocess() or jax.process_index() == 0


@contextlib.contextmanager
def detect_peer_loss() -> Iterator[None]:
    """Within it what jax raises when another process is lost becomes a PeerLost; of a single process nothing is changed."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as problem:  # gloo's failures come as either
        if not is_multiprocess() or (isinstance(problem, ValueError) and "loo" not in str(problem)):
            raise
        raise PeerLost(
            f"Process {jax.process_index()} stopped: another process of this run was lost, or the devices failed "
            f"({first_line(problem)}). What had been saved is safe; started again, all go on from there."
        ) from problem


def connect(mesh: Mesh) -> None:
    """Let all devices along each axis of the mesh, and all together, talk to each other for the first time; all at once.

    gloo gives up on a group whose processes come to its first exchange more than 30 s apart, and of the step that would be
    their first one the compilation may take one of them so much longer. Later it waits.
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
        jax.block_until_ready(jax.jit(total)(put_whole(np.ones(mesh.size, np.float32), NamedSharding(mesh, P(names)))))


WORKING = 7 * 24 * 3600
"""Seconds that the other processes wait for process 0 in `broadcast`: measuring a large data set may take hours."""

_calls = itertools.count()


def broadcast(work: Callable[[], T]) -> T:
    """Run `work` on process 0 and broadcast its result, which may be any value that can be pickled.

    Raise on process 0 what `work` raises, and PeerLost on the other processes.
    """
    if not is_multiprocess():
        return work()
    message, problem = b"", None  # the message stays empty if `work` fails: no pickle is
    if is_leader():
        try:
            message = pickle.dumps(work())
        except Exception as caught:  # noqa: BLE001 - raised again below, after the other processes were informed
            problem = caught
    multihost.get_barrier_sync_fn()(key=f"broadcast-{next(_calls)}", timeout_ms=1000 * WORKING)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    if problem is not None:
        raise problem
    if length == 0:
        raise PeerLost(f"Process {jax.process_index()} stopped, since process 0 did; its message says why.")
    padded = np.frombuffer(message.ljust(length, b"\0"), np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def leader_first(work: Callable[[], T]) -> T:
    """Run `work` on process 0, then on the other processes, which find what it downloaded or measured; return the result."""
    results: list[T] = []
    broadcast(lambda: results.append(work()))
    return results[0] if results else work()


def check_same(values: dict[str, str]) -> None:
    """Raise UsageError, in all processes, unless each of the values {name: value} is the same in all."""
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
    """Raise UsageError unless the mesh has all devices of all processes: one without a part in it could only wait."""
    if is_multiprocess() and mesh.size != jax.device_count():
        shape = " ".join(f"--mesh.{name}={size}" for name, size in mesh.shape.items())
        raise UsageError(
            f"{shape} has {mesh.size} of the {jax.device_count()} devices of {jax.process_count()} processes; expected all. "
            "Leave both options out, or start another number of processes."
        )


def put_whole(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has, on the devices of all."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


class Agreement:
    """A number that one process has, such as a signal it received, and that all must act on at the same step.

    Called by all processes once a step with their own numbers, it gives all of them the largest one of the call `LAG` steps
    before: known by then, so that nobody waits. A single process has its own number back at once.
    """

    LAG = 2

    def __init__(self, mesh: Mesh):
        self._asked: deque[jax.Array] = deque()
        self._several = is_multiprocess()
        if self._several:
            every = Mesh(mesh.devices.reshape(-1), "every")
            self._own, self._devices = NamedSharding(every, P("every")), len(every.local_devices)
            self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(every, P()))

    def __call__(self, number: int | None) -> int | None:
        """The number agreed on, None where there is none (as 0)."""
        if not self._several:
            return number
        own = np.full(self._devices, number or 0, np.int32)
        self._asked.append(self._largest(jax.make_array_from_process_local_data(self._own, own)))
        return (int(self._asked.popleft()) or None) if len(self._asked) > self.LAG else None
