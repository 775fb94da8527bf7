"""Which process of a run this one is, as --distributed or the cluster says. No jax: it is known before jax is imported."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_jax.errors import UsageError

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Hosts whose processes are all on this machine."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process among those of a run."""

    index: int
    """From 0; process 0 writes and prints."""
    count: int | None
    """None: only the cluster knows."""
    address: str | None = None
    """HOST:PORT at which process 0 is met; None: jax asks the cluster."""
    devices: tuple[int, ...] | None = None
    """Of this machine's accelerators those that are this process's own; None: what jax makes of it."""


def identify(distributed: str, environment: Mapping[str, str] = os.environ) -> ProcessIdentity | None:
    """What --distributed=auto, off or HOST:PORT,N,I says of this process; None: it is the only one.

    Raises UsageError for anything else.
    """
    if distributed == "off":
        return None
    if distributed == "auto":
        return _in_cluster(environment)
    return _given(distributed, f"--distributed={distributed}", "auto, off or HOST:PORT,N,I, such as node1:4000,2,0")


def _given(text: str, source: str, expected: str) -> ProcessIdentity:
    try:
        address, count, index = text.split(",")
        host, port = address.rsplit(":", 1)
        found = ProcessIdentity(int(index), int(count), address)
        fits = bool(host) and 0 < int(port) < 2**16 and 0 <= found.index < int(count)
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"{source}: expected {expected}, where process 0 of N listens at HOST:PORT and this is process I of 0 to N-1."
        )
    return found


KUBEFLOW = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
KUBERNETES = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
"""Variables that are set in every process of such a cluster; jax reads the same."""


def _in_cluster(variables: Mapping[str, str]) -> ProcessIdentity | None:
    """The place that a cluster gave this process; None for a job of one task, and anywhere else."""
    there = lambda names: all(variables.get(name) for name in names)  # noqa: E731
    found = None
    try:
        if there(KUBEFLOW):
            text = ",".join(variables[name] for name in KUBEFLOW)
            found = _given(text, f"{', '.join(KUBEFLOW)} are {text}", "HOST:PORT, N and I")
        elif there(OPEN_MPI):
            found = ProcessIdentity(int(variables[OPEN_MPI[2]]), int(variables[OPEN_MPI[1]]))
        elif there(SLURM):
            # An interactive shell has the tasks of its whole job in SLURM_NTASKS, and is one task.
            alone = variables.get("SLURM_STEP_NUM_TASKS") == "1"
            found = None if alone else ProcessIdentity(int(variables["SLURM_PROCID"]), int(variables["SLURM_NTASKS"]))
        elif there(KUBERNETES):
            found = ProcessIdentity(int(variables["JOB_COMPLETION_INDEX"]), None)
    except ValueError as problem:
        raise UsageError(
            f"The cluster's variables make no sense ({problem}). Try --distributed=off or HOST:PORT,N,I."
        ) from problem
    return None if found is None or found.count == 1 else found


def speak_alone(process: ProcessIdentity) -> None:
    """Let only process 0 print, and no library write lines of its own to the standard output, as gloo does."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if process.index == 0:
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)
    os.dup2(nowhere, 1)
    os.close(nowhere)
