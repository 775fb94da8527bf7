"""Fixtures of all tests: eight virtual CPU devices, a cache folder, 64-bit numbers on request, and narrow networks."""

import dataclasses
import os
import sys

import jax
import pytest
import tyro
from jax.experimental.compilation_cache import compilation_cache

from alexnet_jax.experiment import Network
from alexnet_jax.network import networks

STATUS = pytest.StashKey[int]()

jax.config.update("jax_num_cpu_devices", 8)  # raises once a backend has started, so it precedes all tests


@pytest.fixture(autouse=True, scope="session")
def command_lines_are_read_again():
    """Retry a command line once: tyro uses `ast.parse`, which sometimes fails in CPython 3.11 with threads."""
    read = tyro.cli

    def again(*args, **options):
        try:
            return read(*args, **options)
        except SystemError as trouble:  # "AST constructor recursion depth mismatch", gh-106905
            if "AST constructor" not in str(trouble):
                raise
            return read(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tyro, "cli", again)
        yield


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(pytestconfig):
    """Use a cache folder for the tests, in this process and its child processes, instead of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(pytestconfig.cache.mkdir("cache_home")))
        yield


@pytest.fixture(autouse=True, scope="session")
def compile_cache(pytestconfig):
    """Return the folder of compiled programs. Later sessions reuse it, since most of a short run is compilation."""
    folder = pytestconfig.cache.mkdir("jax")
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax decides once whether it has a cache
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def float64():
    """Enable 64-bit numbers, and raise an error on implicit type promotion."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def narrow():
    """Return a function that builds any of the tables with few maps and units, for 16x16 images by default."""

    def build(name="alexnet_cifar", *, image=(16, 16, 3), classes=10, width=1 / 16, fc_units=32, **options):
        table = networks.build(Network(name, width, fc_units, **options), classes)
        return dataclasses.replace(table, image=image)

    return build


def pytest_configure(config):
    """Compile without LLVM's expensive passes in the quick tier, where each program runs a few times only."""
    if config.option.markexpr == "not evidence":
        faster = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        flags = os.environ.get("XLA_FLAGS", "")
        if faster not in flags:  # the processes of pytest-xdist inherit the flags
            os.environ["XLA_FLAGS"] = f"{flags} {faster}".strip()


SLOW = (
    *("test_old_run", "test_resume", "test_sweep_run", "test_commands"),
    *("test_start", "test_python", "test_hybrid", "test_damage"),
)
"""Files with a few tests of up to a minute each."""


def pytest_collection_modifyitems(items):
    """Begin with the slow files, so that the two processes of pytest-xdist end at the same time."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Exit immediately, because after a failed save threads of orbax wait ten minutes for a missing folder."""
    if STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])
