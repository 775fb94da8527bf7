"""Compiled programs kept between two starts: most of the time from a start to its first step goes into compiling."""

import hashlib
import platform
from pathlib import Path

import jax

from alexnet_jax.data.cache import cache_folder

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
