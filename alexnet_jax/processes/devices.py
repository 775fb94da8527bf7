"""Settings that jax must have before it first uses a device, and the cache of compiled programs."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax

from alexnet_jax.experiment import Experiment
from alexnet_jax.files import cache_folder
from alexnet_jax.processes import distributed
from alexnet_jax.processes.allocator import has_accelerator
from alexnet_jax.processes.identity import ProcessIdentity
from alexnet_jax.processes.platforms import check_platforms
from alexnet_jax.processes.start import devices_per_process


def set_up_devices(experiment: Experiment, process: ProcessIdentity | None = None) -> None:
    """Create virtual CPU devices, enable the compilation cache, set flags of XLA, and connect to the other processes, if any.

    Call this before jax first uses a device. Raise UsageError if JAX_PLATFORMS names devices that do not
    exist, RunError if the other processes cannot be reached.
    """
    wanted = devices_per_process(experiment.mesh, (process and process.count) or 1)
    created = getattr(jax.config, "jax_num_cpu_devices")  # noqa: B009 - jax gives it no type
    if wanted > max(1, created):  # without effect on accelerators
        with contextlib.suppress(RuntimeError):  # jax has started, as in a notebook; make_mesh reports devices that are missing
            jax.config.update("jax_num_cpu_devices", wanted)
    if experiment.train.compile_cache:
        enable_compile_cache()
    if has_accelerator():  # exchanges between the columns overlap with computation that does not need them
        _add_flag("--xla_gpu_enable_latency_hiding_scheduler=true")
    if experiment.train.deterministic:
        _add_flag("--xla_gpu_deterministic_ops=true")
    if process is not None:
        distributed.join(process)  # which checks the platforms before its first exchange
    else:
        check_platforms()


def _add_flag(flag: str) -> None:
    """Add a flag to XLA_FLAGS, which XLA reads when jax first uses a device. A flag that the user set is left as it is."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


NUMERIC = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
    "jax_exec_time_optimization_effort": 0.0,
}
"""{setting of jax that can change results: its default}. Users set them by variables such as JAX_ENABLE_X64."""


def settings() -> dict[str, str]:
    """Return the settings of jax and XLA that can change results and are not the default, by name."""
    found = {name: str(getattr(jax.config, name)) for name, usual in NUMERIC.items() if getattr(jax.config, name) != usual}
    flags = os.environ.get("XLA_FLAGS", "")
    return found | ({"XLA_FLAGS": flags} if flags else {})


CPU_INFORMATION = Path("/proc/cpuinfo")


def enable_compile_cache() -> Path:
    """Let jax keep compiled programs between starts; return the folder. A folder that the user gave to jax is left as it is."""
    chosen: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 - jax gives it no type
    if chosen:
        return Path(chosen)
    folder = cache_folder() / f"compiled-{_processor()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a start consists of many short compilations
    return folder


def _processor() -> str:
    """Return a name for the instruction set of this processor: other processors that share a home folder may lack it."""
    features = platform.processor()
    if CPU_INFORMATION.exists():
        lines = CPU_INFORMATION.read_text(errors="replace").splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), features)
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]
