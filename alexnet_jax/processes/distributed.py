"""What the processes of one run do together, through jax.distributed; each function works for a single process too.

Process 0 decides and writes. Nothing here is needed, and nothing is slower, where there is one process.
"""

import contextlib
import hashlib
import itertools
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
from alexnet_jax.processes.identity import LOCAL, Place

MEETING = 300
"""Seconds that the processes of a run wait for each other at its start."""

T = TypeVar("T")


def join(place: Place) -> None:
    """Meet the other processes of the run, before jax's first use of a device.

    Raises RunError when process 0 cannot listen or does not answer. jax itself ends process 0 (SIGABRT) when others are
    missing after MEETING seconds.
    """
    # jax's own handler of SIGTERM would keep it from whoever is to be told: before training the process itself.
    jax.config.update("jax_enable_preemption_service", False)
    options = {}
    if place.address is not None:
        host, port = place.address.rsplit(":", 1)
        options = {
            "coordinator_address": place.address,
            "num_processes": place.count,
            "process_id": place.index,
            "local_device_ids": place.devices,
            "cluster_detection_method": "deactivate",
            "coordinator_bind_address": place.address if host in LOCAL else None,
        }
        if place.index:
            _wait_for(place.address)
        else:
            _check_free(place.address, host.strip("[]") if host in LOCAL else "", int(port))
    if place.index == 0 and place.devices is None:
        print(f"Process 0 of {place.count or 'several'} waits for the others, for at most {MEETING} s.", flush=True)
    try:
        jax.distributed.initialize(initialization_timeout=MEETING, **options)
    except Exception as problem:  # of several types: a port in use, a cluster that does not answer
        what = "in the cluster" if place.address is None else f"at {place.address}"
        raise RunError(
            f"Process {place.index} could not meet the others {what} ({first_line(problem)}). Say by hand where process 0 "
            "listens: --distributed=HOST:PORT,N,I."
        ) from problem
    told(lambda: 0)  # see `connect`


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


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leads() -> bool:
    """Whether this is the process that decides, writes and prints: process 0, or the only one."""
    return not several() or jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within it what jax raises when another process is lost becomes a PeerLost; of a single process nothing is changed."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as problem:  # gloo's failures come as either
        if not several() or (isinstance(problem, ValueError) and "loo" not in str(problem)):
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
    if not several():
        return
    multihost_utils.sync_global_devices("connect")
    names = mesh.axis_names
    for axes in (*((name,) for name in names), names):
        kept = P(*(name for name in names if name not in axes))
        total = jax.shard_map(
            lambda x, axes=axes: jax.lax.psum(x.sum(), axes)[None], mesh=mesh, in_specs=P(names), out_specs=kept
        )
        jax.block_until_ready(jax.jit(total)(put_whole(np.ones(mesh.size, np.float32), NamedSharding(mesh, P(names)))))


FAILED = -1
WORKING = 7 * 24 * 3600
"""Seconds that the others wait for what process 0 works at: the mean of a large data set may take hours."""

_calls = itertools.count()


def told(work: Callable[[], int]) -> int:
    """What `work`, done by process 0 alone, gives: a number from 0 to 2**31 - 1, told to all.

    Raises in process 0 what `work` raises, in the others PeerLost.
    """
    if not several():
        return work()
    number, problem = FAILED, None
    if leads():
        try:
            number = work()
        except Exception as caught:  # noqa: BLE001 - raised again below, once the others know
            problem = caught
    multihost.get_barrier_sync_fn()(key=f"told-{next(_calls)}", timeout_ms=1000 * WORKING)
    number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    if problem is not None:
        raise problem
    if number == FAILED:
        raise PeerLost(f"Process {jax.process_index()} stopped, since process 0 did; its message says why.")
    return number


def in_turn(work: Callable[[], T]) -> T:
    """What `work` gives, done by process 0 and then by the others: what it downloaded or measured, they find."""
    results: list[T] = []

    def first() -> int:
        results.append(work())
        return 0

    told(first)
    return results[0] if results else work()


def check_same(values: dict[str, str]) -> None:
    """Raise UsageError, in all processes, unless each of the values {name: value} is the same in all."""
    if not several():
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
    if several() and mesh.size != jax.device_count():
        shape = " ".join(f"--mesh.{name}={size}" for name, size in mesh.shape.items())
        raise UsageError(
            f"{shape} has {mesh.size} of the {jax.device_count()} devices of {jax.process_count()} processes; expected all. "
            "Leave both options out, or start another number of processes."
        )


def put_whole(array: np.ndarray, place: NamedSharding) -> jax.Array:
    """An array that every process has, on the devices of all."""
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])


class Agreement:
    """A number that one process has, such as a signal it received, and that all must act on at the same step.

    Called by all processes once a step with their own numbers, it gives all of them the largest one of the call `LAG` steps
    before: known by then, so that nobody waits. A single process has its own number back at once.
    """

    LAG = 2

    def __init__(self, mesh: Mesh):
        self._asked: deque[jax.Array] = deque()
        self._several = several()
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
