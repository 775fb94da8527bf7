"""The environment of a run: versions, machine, devices and commit. It is part of experiment.json and of the reports."""

import platform
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
"""The distributions whose versions can change a result."""


@dataclass(frozen=True)
class Environment:
    """What a result can depend on besides the experiment and its data. None stands for what could not be determined."""

    versions: dict[str, str | None] = field(default_factory=dict)  # {library: version, None where not installed}
    python: str | None = None
    platform: str | None = None
    processor: str | None = None
    backend: str | None = None
    device_kinds: tuple[str, ...] = ()  # sorted, each once
    device_count: int | None = None
    process_count: int = 1
    commit: str | None = None
    dirty: bool | None = None  # whether files differ from the commit


def current_environment() -> Environment:
    """Return the environment of this process. It starts jax's backend."""
    import jax

    devices = jax.devices()
    commit, dirty = checkout(Path(__file__).resolve().parents[2])
    return Environment(
        versions={library: _version(library) for library in LIBRARIES},
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(),
        backend=jax.default_backend(),
        device_kinds=tuple(sorted({device.device_kind for device in devices})),
        device_count=len(devices),
        process_count=jax.process_count(),
        commit=commit,
        dirty=dirty,
    )


def checkout(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of `folder` and whether its files differ from it; (None, None) unless it is a checkout's root."""
    # An installed copy may be inside another project's checkout, whose commit does not describe this code.
    top = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD") if top and Path(top) == folder.resolve() else None
    changes = _git(folder, "status", "--porcelain") if commit else None
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    """Return the processor's name, from /proc/cpuinfo where possible: platform.processor() is empty on many Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
