"""Check the compilation cache, one folder per processor unless the user chose one, and the added XLA flags."""

import ast
import os
import subprocess
import sys

import jax
import pytest
from running import ROOT

from alexnet_jax.experiment import Experiment, Train
from alexnet_jax.processes import devices


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_in_the_cache_folder(tmp_path):
    folder = devices.enable_compile_cache()
    assert folder.parent == tmp_path / "alexnet_jax"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert devices.enable_compile_cache() == folder


def test_the_option_controls_the_cache(monkeypatch):
    called = []
    monkeypatch.setattr(devices, "enable_compile_cache", lambda: called.append(True))
    for wanted in (False, True):
        devices.set_up_devices(Experiment("one", train=Train(compile_cache=wanted)))
        assert called == [True] * wanted


def started(program, **variables):
    """Return the standard output of a program of Python in a new process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))}
    command = [sys.executable, "-c", f"from alexnet_jax.errors import *\nfrom alexnet_jax.processes.devices import *\n{program}"]
    done = subprocess.run(command, env=kept | variables, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_only_settings_that_are_not_the_default_are_recorded():
    assert started("print(settings())") == "{}"
    found = started("print(settings())", JAX_ENABLE_X64="1", JAX_DEFAULT_MATMUL_PRECISION="high", XLA_FLAGS="--xla_dump_to=x")
    expected = {"jax_enable_x64": "True", "jax_default_matmul_precision": "high", "XLA_FLAGS": "--xla_dump_to=x"}
    assert ast.literal_eval(found) == expected


@pytest.mark.parametrize("platform", ["cuda", "gpuu"])
def test_platforms_that_do_not_exist_are_refused(platform):
    program = "try:\n    check_platforms()\nexcept UsageError as problem:\n    print(problem)\nelse:\n    print('found')"
    message = started(program, JAX_PLATFORMS=platform, JAX_NUM_CPU_DEVICES="2")
    if message == "found":
        pytest.skip(f"this machine has {platform}")
    assert message.startswith(f"JAX_PLATFORMS={platform}: ") and "jax finds 2 x cpu. Unset it" in message
    assert started(program, JAX_PLATFORMS="cpu") == started(program) == "found"


@pytest.mark.parametrize("before", ["", "--xla_gpu_enable_latency_hiding_scheduler=false --xla_dump_to=x"])
def test_flags_are_added_to_those_of_the_user(monkeypatch, before):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(devices, "has_accelerator", lambda: True)
    monkeypatch.setattr(devices, "enable_compile_cache", lambda: None)
    devices.set_up_devices(Experiment("one", train=Train(deterministic=True)))
    devices.set_up_devices(Experiment("one", train=Train(deterministic=True)))
    flags = os.environ["XLA_FLAGS"].split()
    assert len(flags) == len({flag.split("=")[0] for flag in flags})
    assert set(before.split()) | {"--xla_gpu_deterministic_ops=true"} <= set(flags)
    assert any(flag.startswith("--xla_gpu_enable_latency_hiding_scheduler") for flag in flags)


def test_a_folder_that_the_user_chose_is_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert devices.enable_compile_cache() == tmp_path / "own"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")


@pytest.mark.parametrize("flags", ["flags\t\t: fpu avx2", "Features\t: fp asimd"])
def test_each_kind_of_processor_has_its_folder(tmp_path, monkeypatch, flags):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(devices, "CPU_INFORMATION", cpuinfo)
    names = set()
    for text in (f"processor : 0\n{flags}\ncpu MHz : 1", f"processor : 0\n{flags}\ncpu MHz : 2", f"{flags} more\n", ""):
        cpuinfo.write_text(text)
        jax.config.update("jax_compilation_cache_dir", None)
        names.add(devices.enable_compile_cache())
    assert len(names) == 3  # the clock frequency does not matter
