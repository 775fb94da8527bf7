"""Keep freed memory in the process: on a CPU a large gain in speed, and it costs one call.

XLA takes fresh large buffers in every step. glibc returns such buffers to the kernel when they are freed, so each step
pays a page fault for every page again. Once `keep_memory` was called the process keeps its peak memory until it ends.
"""

import ctypes
import importlib.util
import os
import platform
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # <malloc.h>

SETTINGS = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 256 * 2**20}

ACCELERATORS = {"/dev/nvidiactl": "jax_plugins", "/dev/kfd": "jax_plugins", "/dev/accel0": "libtpu"}
"""{device: the module without which jax does not use it}"""


def keep_memory() -> bool:
    """Set glibc's allocator through mallopt. True if it took; nothing is done but on Linux with glibc, computing on the CPU.

    Call it before numpy or jax is imported: their threads create arenas of their own, and from such an arena glibc maps
    and unmaps every request above 64 MiB, whatever it was told.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or accelerated():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) == 1 for option, value in SETTINGS.items())


def accelerated() -> bool:
    """Whether jax will compute elsewhere than on the CPU; it cannot be asked itself before its first use."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms != "cpu"
    return any(Path(device).exists() and importlib.util.find_spec(module) for device, module in ACCELERATORS.items())
