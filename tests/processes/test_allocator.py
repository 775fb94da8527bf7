"""Check that freed memory stays in the process, on Linux with glibc."""

import os
import platform
import subprocess
import sys

import pytest
from running import ROOT

from alexnet_jax.processes import allocator

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"

PROGRAM = """
import ctypes, resource, sys
from alexnet_jax.processes import allocator
if sys.argv[1] == "keep":
    assert allocator.keep_memory() is True
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 64 * 2**20

def use():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return int(run.stdout)


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_freed_memory_is_reused_without_page_faults():
    assert page_faults("keep") < 100
    assert page_faults("release") > 500  # five times 64 MiB, in huge pages or small ones


RETURN = """
import ctypes
from alexnet_jax.processes import allocator

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

allocator.keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 64 * 2**20
block, behind = libc.malloc(size), libc.malloc(2**20)  # the second block keeps the first from being the end of the heap
ctypes.memset(block, 1, size)
libc.free(block)
kept = resident()
allocator.return_free_memory()
print(kept - resident())
"""


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_free_memory_is_returned_on_request():
    run = subprocess.run([sys.executable, "-c", RETURN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) > 60 * 2**20


@pytest.mark.parametrize(
    ("platforms", "device", "module", "found"),
    [
        ("cuda", "/nowhere", "nothing", True),
        ("", sys.executable, "json", True),
        ("", sys.executable, "no_such_module", False),  # a GPU, but jax without its plugin
        ("", "/nowhere", "json", False),
        ("cpu", sys.executable, "json", False),
    ],
)
def test_an_accelerator_needs_a_device_and_a_plugin(monkeypatch, platforms, device, module, found):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(allocator, "ACCELERATORS", {device: module})
    assert allocator.has_accelerator() is found


def test_nothing_is_done_with_an_accelerator(monkeypatch):
    monkeypatch.setattr(allocator, "has_accelerator", lambda: True)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("mallopt was called"))
    assert allocator.keep_memory() is False


@pytest.mark.parametrize(("system", "libc"), [("darwin", ""), ("win32", ""), ("linux", "musl")])
def test_nothing_is_done_without_glibc(monkeypatch, system, libc):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "1"))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("mallopt was called"))
    assert allocator.keep_memory() is False


def test_a_refused_setting_is_reported(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    class Library:
        @staticmethod
        def mallopt(option, value):
            return int(option != allocator.M_ARENA_MAX)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Library)
    assert allocator.keep_memory() is False
