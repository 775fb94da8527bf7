"""Two ways to run the trials of a sweep: one after another in this process, or as tasks of Ray."""

import os
from collections.abc import Sequence
from pathlib import Path

from alexnet_jax.errors import Busy, Interrupted, UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.processes.signals import Signals
from alexnet_jax.sweeps import trials
from alexnet_jax.sweeps.plan import Trial

RETRIES = 3
"""Number of times that Ray restarts a trial whose worker or machine was lost; it resumes from its latest checkpoint."""


def here(todo: Sequence[Trial], shipped: Experiment) -> None:
    """Run trials one after another. Trials that another process trains are skipped, so that processes can share a sweep.

    Raises Interrupted after a signal, once the trial is saved.
    """
    with Signals() as signals:
        for number, trial in enumerate(todo, 1):
            if signals.received:
                raise Interrupted(signals.received)
            if trials.ended(trial):  # by another process, or as a trial of an equal arm
                continue
            print(f"\n[{number}/{len(todo)}] {trial.arm}, seed {trial.seed}: {trial.folder}", flush=True)
            try:
                trials.run(trial, shipped)
            except Busy:
                print("Another process is training this trial; it is skipped.")
            status, message = trials.state(trial)
            if status in ("failed", "diverged"):
                print(f"{status}: {message}", flush=True)


def with_ray(todo: Sequence[Trial], shipped: Experiment, address: str | None) -> None:
    """Submit all trials to Ray. Each requests the devices of its mesh: GPUs if the cluster has any, else CPU cores.

    The folder of the runs must be visible to all machines of the cluster. Raises UsageError when Ray is not installed or the
    cluster does not answer.
    """
    try:
        import ray
    except ImportError as problem:
        raise UsageError(
            f"--sweep.engine=ray needs Ray ({problem}): pip install -r requirements-cluster.txt -c constraints.txt"
        ) from problem
    _connect(address)
    try:
        resource = "num_gpus" if ray.cluster_resources().get("GPU") else "num_cpus"
        running = {}
        # A new process for each trial: jax counts devices once, and the allocator must be tuned before jax is imported.
        remote = ray.remote(max_calls=1, max_retries=RETRIES)(_in_worker)
        for trial in todo:
            mesh = trial.experiment.mesh
            devices = (mesh.data or 1) * (mesh.column or 1)
            task = remote.options(**{resource: devices})
            running[task.remote(trial, shipped, devices if resource == "num_cpus" else None)] = trial
        _collect(running)
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    root = Path(__file__).resolve().parents[2]
    shipped = {"working_dir": str(root), "excludes": [".git", "runs", "docs", "tests"]}
    environment = {"env_vars": {"PYTHONPATH": str(root)}} if address is None else shipped
    try:
        ray.init(
            address, runtime_env=environment, log_to_driver=False, include_dashboard=False if address is None else None
        )
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise UsageError(
            f"--sweep.address={address}: Ray did not answer ({problem}). Expected the address of a running cluster, such as "
            "ray://host:10001 or auto; omit it to use Ray on this machine."
        ) from problem


def _collect(running: dict) -> None:
    """Wait for all trials. Raises Interrupted after a signal; running trials resume from their checkpoints next time."""
    import ray
    from ray.exceptions import RayError

    total = len(running)
    with Signals() as signals:
        while running:
            if signals.received:
                for trial in running.values():
                    trials.forget(trial)
                raise Interrupted(signals.received)
            done, _ = ray.wait(list(running), num_returns=1, timeout=1)
            for task in done:
                trial = running.pop(task)
                try:
                    ray.get(task)
                except RayError as problem:
                    trials.failed(trial, f"{type(problem).__name__}: {str(problem).splitlines()[0]}")
                status, message = trials.state(trial)
                number = f"[{total - len(running)}/{total}]"
                print(f"{number} {trial.arm}, seed {trial.seed}: {status} {message}, {trial.folder}", flush=True)


def _in_worker(trial: Trial, shipped: Experiment, threads: int | None) -> None:
    """Run one trial in a Ray worker. The allocator and the number of threads are set before jax is imported."""
    from alexnet_jax.processes.allocator import keep_memory

    if threads is not None:  # XLA reads this as the number of cores; otherwise each trial would use all of them
        os.environ["NPROC"] = str(threads)
    if trial.experiment.train.tune_allocator:
        keep_memory()
    try:
        trials.run(trial, shipped)
    except (Busy, Interrupted):  # interrupted: the machine is taken away; the next start of the sweep resumes the trial
        return
