"""Check how a process identifies itself from --distributed and from a cluster's variables, as jax does."""

import os
import subprocess
import sys

import pytest
from jax._src import clusters  # the reference: jax's own detection

from alexnet_jax.errors import UsageError
from alexnet_jax.processes.identity import ProcessIdentity, identify

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[003-004]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
KUBEFLOW = {
    "JAX_COORDINATOR_ADDRESS": "alexnet-node-0-0.alexnet:6666",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "JOB_COMPLETION_INDEX": "1",
}


def test_off_and_a_single_machine_mean_one_process():
    assert identify("off", SLURM) is None
    assert identify("auto", {}) is None
    assert identify("auto", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None  # such as the pod of a notebook


@pytest.mark.parametrize(
    ("given", "process"),
    [
        ("node1:4000,2,0", ProcessIdentity(0, 2, "node1:4000")),
        ("10.0.0.1:65535,8,7", ProcessIdentity(7, 8, "10.0.0.1:65535")),
        ("[::1]:4000,2,1", ProcessIdentity(1, 2, "[::1]:4000")),
    ],
)
def test_an_address_identifies_the_process(given, process):
    assert identify(given) == process


@pytest.mark.parametrize(
    "given",
    [
        "on",
        "",
        "node1:4000",
        "node1:4000,2",
        "node1,2,0",
        ":4000,2,0",
        "node1:0,2,0",
        "node1:70000,2,0",
        "node1:4000,2,2",
        "node1:4000,2,-1",
        "node1:4000,two,0",
        "node1:4000,2,0,0",
    ],
)
def test_any_other_value_is_refused(given):
    with pytest.raises(UsageError, match="expected auto, off or HOST:PORT,N,I") as refused:
        identify(given)
    assert f"--distributed={given}:" in str(refused.value)


@pytest.mark.parametrize(("variables", "cluster"), [(SLURM, "slurm"), (OPEN_MPI, "ompi")])
def test_slurm_and_open_mpi_are_read_as_jax_reads_them(variables, cluster, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    jax = next(kind for kind in clusters.ClusterEnv._cluster_types if kind.name == cluster)
    assert jax.is_env_present()
    assert identify("auto", os.environ) == ProcessIdentity(jax.get_process_id(), jax.get_process_count())
    for name in variables:
        if name not in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_LOCAL_RANK"):
            assert identify("auto", {k: v for k, v in variables.items() if k != name}) is None


def test_kubeflow_and_indexed_jobs_of_kubernetes():
    assert identify("auto", KUBEFLOW) == ProcessIdentity(1, 2, "alexnet-node-0-0.alexnet:6666")
    indexed = {name: KUBEFLOW[name] for name in ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")}
    assert identify("auto", indexed) == ProcessIdentity(1, None)


def test_a_job_of_one_task_is_one_process():
    assert identify("auto", SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
    shell = SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert identify("auto", shell) is None
    assert identify("auto", OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}) is None
    assert identify("auto", KUBEFLOW | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None


def test_invalid_variables_of_a_cluster_are_reported():
    with pytest.raises(UsageError, match="environment variables are invalid"):
        identify("auto", SLURM | {"SLURM_NTASKS": "4(x2)"})
    with pytest.raises(UsageError, match="JAX_COORDINATOR_ADDRESS"):
        identify("auto", KUBEFLOW | {"JAX_COORDINATOR_ADDRESS": "alexnet-node-0-0"})


@pytest.mark.parametrize(("index", "printed"), [(0, "mine\n"), (1, "")])
def test_only_process_0_prints_and_no_library(index, printed):
    program = (
        "import os, sys\n"
        "from alexnet_jax.processes.identity import ProcessIdentity, restrict_output\n"
        f"restrict_output(ProcessIdentity({index}, 2))\n"
        "print('mine', flush=True)\n"
        "os.write(1, b'a library\\n')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout == printed
