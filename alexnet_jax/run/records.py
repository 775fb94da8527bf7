"""The records of a run: experiment.json, result.json and the lines of metrics.jsonl, with their types.

This module imports jax only where it describes the running process, so that a finished run can be read without a device.
"""

import contextlib
import dataclasses
import json
import platform
import subprocess
import typing
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, TypedDict, TypeVar, get_type_hints

from alexnet_jax import files
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import Experiment, differences, fits, from_json
from alexnet_jax.processes.allocator import keeps_memory

T = TypeVar("T")

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
    settings: dict[str, str] | None = None  # of jax and XLA, where they are not the default (processes/devices.py)
    keeps_memory: bool | None = None  # whether the allocator keeps freed memory (processes/allocator.py)


@dataclass(frozen=True)
class DataIdentity:
    """The data set that a run was trained on."""

    title: str
    fingerprint: str


@dataclass(frozen=True)
class RunRecord:
    """What a run trains, on which data, in which environment and from which parameters: experiment.json."""

    experiment: Experiment
    data: DataIdentity
    environment: Environment
    restored_from: str | None = None  # the step folder or weights file with the first parameters; None: random ones
    restore_skip: tuple[str, ...] = ()  # layers that were initialized at random all the same
    origin_checksum: int | None = None  # of the parameters in `restored_from`, which may move; None in older records
    has_statistics: bool | None = None  # whether weights were imported with their statistics; None where it is not known

    def differences(
        self, experiment: Experiment, restored_from: str | None, restore_skip: tuple[str, ...]
    ) -> dict[str, tuple[Any, Any]]:
        """Return {option: (recorded, requested)} for the options that forbid continuing this run as requested."""
        found = differences(self.experiment, experiment)
        if self.restored_from != restored_from:
            found["restore"] = self.restored_from, restored_from
        if self.restore_skip != restore_skip:
            found["restore_skip"] = ",".join(self.restore_skip) or None, ",".join(restore_skip) or None
        return found


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run reached, of the test images where not said otherwise: result.json. Errors are fractions."""

    loss: float | None = None
    top1_error: float
    top5_error: float
    examples: int
    best_validation_top1_error: float | None = None
    best_step: int | None = None
    steps: int
    epochs: float | None = None
    seconds: float | None = None  # of training


def from_values(kind: type[T], values: dict[str, Any]) -> T:
    """Return a record made of JSON values. Unknown keys are ignored; missing ones get the field's default.

    Raises ValueError naming a value of another type, UsageError when an experiment is of another version.
    """
    found, hints = {}, get_type_hints(kind)
    for entry in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType] - every record is a dataclass
        if entry.name not in values and (entry.default, entry.default_factory) != (dataclasses.MISSING,) * 2:
            continue
        value = _typed(values.get(entry.name), hints[entry.name])
        if not fits(value, hints[entry.name]):
            raise ValueError(f"{entry.name} is {value!r}")
        found[entry.name] = value
    return kind(**found)


def _typed(value: Any, hint: Any) -> Any:
    """Return a JSON value with its objects turned into records and its arrays into tuples, where `hint` has them."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_json(value) if hint is Experiment else from_values(typing.cast("type[Any]", hint), value)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_typed(each, typing.get_args(hint)[0]) for each in value)
    return value


def read_record(kind: type[T], path: Path, remedy: str) -> T | None:
    """Return a record that was written as a JSON file; None when the file is missing.

    Raises RunError, which ends with `remedy`, when the file cannot be read or holds something else.
    """
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        return from_values(kind, values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise RunError(f"{path} is damaged ({problem}). {remedy}") from problem


# --- the environment of this process -----------------------------------------------------------------------------------


def current_environment() -> Environment:
    """Return the environment of this process. It starts jax's backend."""
    import jax

    from alexnet_jax.processes.devices import settings

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
        settings=settings(),
        keeps_memory=keeps_memory(),
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
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


# --- metrics.jsonl -----------------------------------------------------------------------------------------------------


class _Line(TypedDict):
    step: int  # steps done
    epoch: float
    time: float  # seconds since 1970
    data: str  # the data set's title


class TrainLine(_Line):
    """Training since the last such line. None stands for a number that is not finite or was not measured."""

    kind: Literal["train"]
    loss: float | None  # of the last step
    mean_loss: float | None
    mean_error: float | None  # a fraction
    learning_rate: float | None
    images_per_second: float | None


class EvaluationLine(_Line):
    """One evaluation. Errors are fractions."""

    kind: Literal["validation", "test"]
    loss: float | None
    top1_error: float
    top5_error: float
    seconds: NotRequired[float]  # of a validation
    examples: NotRequired[int]  # of a test


Line = TrainLine | EvaluationLine
"""A line of metrics.jsonl."""


def read_metrics(path: Path) -> list[Line]:
    """Return every line of a metrics.jsonl, in order. A last line that a killed process left incomplete is skipped.

    Raises RunError naming the line when another line is damaged, or the file when it cannot be read.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        message = f"Cannot read the metrics {path}: {error.strerror}. Expected the metrics.jsonl of a run."
        raise RunError(message) from error
    # Complete lines end with a newline, so what follows the last newline is empty or incomplete.
    return [_parse(line, number, path) for number, line in enumerate(lines[:-1], start=1)]


def _parse(line: bytes, number: int, path: Path) -> Line:
    values: Any = None
    with contextlib.suppress(ValueError):
        values = json.loads(line)
    types = TYPES.get(str(values.get("kind")), {}) if isinstance(values, dict) else {}
    required = types and _Line.__required_keys__ <= values.keys()
    if required and all(fits(values[key], types[key]) for key in types.keys() & values.keys()):
        return typing.cast("Line", values)
    shown = line[:60].decode(errors="replace")
    raise RunError(
        f"{path}, line {number}: found {shown!r}, expected a JSON object with a kind, a step and numbers. "
        "The file is damaged; remove that line, or start the run anew with --overwrite."
    )


TYPES: dict[str, dict[str, Any]] = {
    "train": get_type_hints(TrainLine),
    "validation": get_type_hints(EvaluationLine),
    "test": get_type_hints(EvaluationLine),
}
"""{kind of line: {key: type}}"""


class MetricsFile:
    """metrics.jsonl, opened to append the lines of the steps after `first_step`."""

    def __init__(self, path: Path, first_step: int):
        """Remove the lines of later steps, and with first_step=0 all lines. Raises RunError when the file is damaged."""
        self._path = path
        old = read_metrics(path) if first_step and path.exists() else []
        kept = [line for line in old if line["step"] <= first_step]
        self._replace(kept)
        # A process that is killed between writing a result and saving the step's checkpoint is followed by one that writes
        # the same result again.
        self._repeatable = {(line["kind"], line["step"]) for line in kept if line["step"] == first_step}
        self._file = self._open()

    def write(self, line: Line) -> None:
        """Append one line and flush it: the death of this process does not lose it."""
        key = (line["kind"], line["step"])
        if key in self._repeatable:
            self._repeatable.discard(key)
            self._file.close()
            self._replace([old for old in read_metrics(self._path) if (old["kind"], old["step"]) != key])
            self._file = self._open()
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> IO[str]:
        return self._path.open("a", encoding="ascii")

    def _replace(self, lines: list[Line]) -> None:
        files.write(self._path, "".join(json.dumps(line) + "\n" for line in lines))
