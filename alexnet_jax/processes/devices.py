"""What must be said before jax touches a device; compiled programs kept between two starts."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from alexnet_jax.experiment import Experiment
from alexnet_jax.files import cache_folder
from alexnet_jax.processes import distributed
from alexnet_jax.processes.allocator import accelerated
from alexnet_jax.processes.identity import ProcessIdentity
from alexnet_jax.processes.start import devices_per_process


def set_up_devices(experiment: Experiment, process: ProcessIdentity | None = None) -> None:
    """Everything that must be said before jax touches a device: virtual CPU devices, compiled programs, determinism.

    As one of several processes it also meets the others. Raises RunError when it cannot.
    """
    wanted = devices_per_process(experiment.mesh, (process and process.count) or 1)
    made = getattr(jax.config, "jax_num_cpu_devices")  # noqa: B009 - jax gives it no type
    if wanted > max(1, made):  # has no effect where there is an accelerator
        jax.config.update("jax_num_cpu_devices", wanted)
    if experiment.train.compile_cache:
        keep_compiled()
    if accelerated():  # what one column waits for from the other is sent while both go on with what needs none of it
        _add_flag("--xla_gpu_enable_latency_hiding_scheduler=true")
    if experiment.train.deterministic:
        _add_flag("--xla_gpu_deterministic_ops=true")
    if process is not None:
        distributed.join(process)


def _add_flag(flag: str) -> None:
    """Of XLA, read at jax's first use of a device; one that the user set stays."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


CPU_INFORMATION = Path("/proc/cpuinfo")


def keep_compiled() -> Path:
    """Have jax keep what it compiles; the folder it is kept in. A folder that the user gave to jax stays as it is."""
    chosen: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 - jax gives it no type
    if chosen:
        return Path(chosen)
    folder = cache_folder() / f"compiled-{_processor()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a start consists of many short ones too
    return folder


def _processor() -> str:
    """A name for what this processor can do: with a home folder on a network, programs for another one would crash."""
    features = platform.processor()
    if CPU_INFORMATION.exists():
        lines = CPU_INFORMATION.read_text(errors="replace").splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), features)
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]
