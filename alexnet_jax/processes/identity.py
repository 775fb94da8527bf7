"""Which process of a run this one is, from --distributed or from the cluster's variables. Known before jax is imported."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_jax.errors import UsageError

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Hosts at which process 0 is reached only from its own machine."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One of the processes of a run."""

    index: int
    """Index of the process, from 0. Process 0 writes and prints."""
    count: int | None
    """Number of processes; None if only the cluster knows it."""
    address: str | None = None
    """HOST:PORT at which process 0 listens; None: jax asks the cluster."""
    devices: tuple[int, ...] | None = None
    """Indices of this machine's accelerators that the process uses; None: jax decides."""


def identify(distributed: str, environment: Mapping[str, str] = os.environ) -> ProcessIdentity | None:
    """Return which process this one is according to --distributed=auto, off or HOST:PORT,N,I; None if it is the only one.

    Raise UsageError for any other value, and for invalid variables of a cluster.
    """
    if distributed == "off":
        return None
    if distributed == "auto":
        return _in_cluster(environment)
    return _parse(distributed, f"--distributed={distributed}", "auto, off or HOST:PORT,N,I, such as node1:4000,2,0")


def _parse(text: str, source: str, expected: str) -> ProcessIdentity:
    """Parse HOST:PORT,N,I; `source` and `expected` are for the error message."""
    try:
        address, count, index = text.split(",")
        host, port = address.rsplit(":", 1)
        process = ProcessIdentity(int(index), int(count), address)
        valid = bool(host) and 0 < int(port) < 2**16 and 0 <= process.index < int(count)
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"{source}: expected {expected}, where process 0 of N listens at HOST:PORT and this is process I of 0 to N-1."
        )
    return process


KUBEFLOW = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
OPEN_MPI = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
KUBERNETES = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
"""Variables that are set in every process of such a cluster, as jax reads them."""


def _in_cluster(variables: Mapping[str, str]) -> ProcessIdentity | None:
    """Return which process of the cluster's job this one is; None outside a cluster and for a job of one task."""
    has = lambda names: all(variables.get(name) for name in names)  # noqa: E731
    process = None
    try:
        if has(KUBEFLOW):
            text = ",".join(variables[name] for name in KUBEFLOW)
            process = _parse(text, f"{', '.join(KUBEFLOW)} are {text}", "HOST:PORT, N and I")
        elif has(OPEN_MPI):
            process = ProcessIdentity(int(variables[OPEN_MPI[2]]), int(variables[OPEN_MPI[1]]))
        elif has(SLURM):
            # An interactive shell is a single task, although its SLURM_NTASKS counts the tasks of the job.
            alone = variables.get("SLURM_STEP_NUM_TASKS") == "1"
            process = None if alone else ProcessIdentity(int(variables["SLURM_PROCID"]), int(variables["SLURM_NTASKS"]))
        elif has(KUBERNETES):
            process = ProcessIdentity(int(variables["JOB_COMPLETION_INDEX"]), None)
    except ValueError as problem:
        raise UsageError(
            f"The cluster's environment variables are invalid ({problem}). Use --distributed=off or HOST:PORT,N,I."
        ) from problem
    return None if process is None or process.count == 1 else process


def restrict_output(process: ProcessIdentity) -> None:
    """Let only process 0 print, and keep lines of libraries such as gloo from standard output."""
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    if process.index == 0:
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(null, 1)
    os.close(null)
