"""Check the compilation cache, one folder per processor unless the user chose one, and the added XLA flags."""

import os

import jax
import pytest

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
