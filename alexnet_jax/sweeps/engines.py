"""Where the trials of a sweep run: one after another in this process, or handed to Ray. Neither schedules anything itself."""

import os
from collections.abc import Sequence
from pathlib import Path

from alexnet_jax.errors import Busy, Interrupted, UsageError
from alexnet_jax.experiment import Experiment
from alexnet_jax.processes.signals import Signals
from alexnet_jax.sweeps import trials
from alexnet_jax.sweeps.plan import Trial

RETRIES = 3
"""Times that Ray runs a trial again whose worker or machine was lost; it goes on from its latest checkpoint."""


def here(todo: Sequence[Trial], shipped: Experiment) -> None:
    """One after another. A trial that another process is working at is left to it, so two processes share a sweep.

    Raises Interrupted after a signal, once the trial is saved.
    """
    with Signals() as signals:
        for number, trial in enumerate(todo, 1):
            if signals.received:
                raise Interrupted(signals.received)
            if trials.ended(trial):  # by another process, or because an arm before it is the same
                continue
            print(f"\n[{number}/{len(todo)}] {trial.arm}, seed {trial.seed}: {trial.folder}", flush=True)
            try:
                trials.run(trial, shipped)
            except Busy:
                print("Another process is working at this trial; it is left to it.")
            status, message = trials.state(trial)
            if status in ("failed", "diverged"):
                print(f"{status}: {message}", flush=True)


def with_ray(todo: Sequence[Trial], shipped: Experiment, address: str | None) -> None:
    """All at once, each asking Ray for the devices its mesh needs; an accelerator where the cluster has some, else cores.

    The folder of the runs must be one that all machines of the cluster see. Raises UsageError when Ray is not installed or
    the cluster does not answer.
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
        # A fresh process for each trial: jax counts its devices once, and memory is set before it starts.
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
            "ray://host:10001 or auto; leave it out for Ray on this machine."
        ) from problem


def _collect(running: dict) -> None:
    """Wait for all trials. Raises Interrupted after a signal; what was running goes on from its checkpoints the next time."""
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
    """What a Ray worker does: one trial, in a process of its own. jax is imported only after memory and threads are set."""
    from alexnet_jax.processes.allocator import keep_memory

    if threads is not None:  # what XLA takes for the number of cores, or each trial would use all of them
        os.environ["NPROC"] = str(threads)
    if trial.experiment.train.tune_allocator:
        keep_memory()
    try:
        trials.run(trial, shipped)
    except (
        Busy,
        Interrupted,
    ):  # interrupted: its machine is taken away; what was saved is for the next start of the sweep
        return
