"""report.md: what a run reached, on which data, with what, and the command that repeats it."""

import platform
import re
import shlex
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from alexnet_jax import files
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, flatten, from_json
from alexnet_jax.formatting import MISSING, duration, markdown_table, percent
from alexnet_jax.modes import Request
from alexnet_jax.run.learning_curves import draw_learning_curves
from alexnet_jax.run.metrics import read_metrics
from alexnet_jax.run.workdir import Workdir

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
"""The distributions whose versions can change a result."""

CURVES = "figures/learning_curves.png"
"""The report's picture, relative to the run's folder."""


def write_report(
    folder: Path,
    experiment: Experiment,
    environment: dict[str, Any],
    data_title: str,
    metrics: list[dict[str, Any]],
    result: dict[str, Any],
    base: Experiment | None = None,
) -> Path:
    """Write report.md and figures/learning_curves.png into `folder`; returns the report's path.

    `environment` is what `environment()` gave, `metrics` the lines of `read_metrics`. `result` may hold top1_error,
    top5_error and best_validation_top1_error (fractions), loss, examples (of the test set), best_step, steps, epochs
    and seconds; a missing or null one is said to be missing. `base` is the experiment as its file under experiments/ gives
    it: with it the command lists only the options that differ, without it every option that matters.
    """
    folder = Path(folder)
    draw_learning_curves(metrics, folder / CURVES, experiment.name, data_title)
    sections = [
        f"# {experiment.name}",
        _headline(data_title, result),
        f"![Learning curves]({CURVES})",
        _facts(environment, data_title, metrics, result),
        f"Repeat it with\n\n```\n{_command(experiment, base)}\n```",
        _versions(environment),
        _validations(metrics),
    ]
    path = folder / "report.md"
    files.write(path, "\n\n".join(sections) + "\n")
    return path


def environment() -> dict[str, Any]:
    """Versions, machine, devices and commit of this process, as JSON values; what cannot be found out is None.

    Keys: versions {library: version}, python, platform, processor, device_kinds (sorted), device_count, process_count, backend,
    commit, dirty.
    """
    import jax

    devices = jax.devices()
    return {
        "versions": {library: _version(library) for library in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "backend": jax.default_backend(),
        "device_kinds": sorted({device.device_kind for device in devices}),
        "device_count": len(devices),
        "process_count": jax.process_count(),
        **_checkout(Path(__file__).resolve().parents[2]),
    }


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    """The model's name; platform.processor() is empty on many Linux systems, so /proc/cpuinfo is asked first."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _checkout(folder: Path) -> dict[str, Any]:
    """The commit `folder` is at and whether its files differ from it; None and None unless it is a checkout's root."""
    # An installed copy may lie inside somebody else's checkout, whose commit says nothing about this code.
    top = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD") if top and Path(top) == folder.resolve() else None
    changes = _git(folder, "status", "--porcelain") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, check=False, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _headline(data_title: str, result: dict[str, Any]) -> str:
    top1, top5 = result.get("top1_error"), result.get("top5_error")
    if top1 is None:
        return f"**No test result on {data_title} yet.**"
    errors = [f"Test top-1 {_error_and_accuracy(top1)}", f"top-5 {_error_and_accuracy(top5)}"]
    examples = result.get("examples")
    images = "the test images" if examples is None else f"{examples:,} test images"
    return f"**{', '.join(errors)}, on {images} of {data_title}.**"


def _error_and_accuracy(error: float | None) -> str:
    return "error not measured" if error is None else f"error {percent(error)} (accuracy {percent(1 - error)})"


def _facts(environment: dict[str, Any], data_title: str, metrics: list[dict[str, Any]], result: dict[str, Any]) -> str:
    rows = {
        "Data": data_title,
        "Test loss": _number(result.get("loss"), "{:.4f} nats per image"),
        "Best validation": _best_validation(result),
        "Trained for": f"{_number(result.get('epochs'), '{:g} epochs')}, {_number(result.get('steps'), '{:,} steps')}",
        "Time": duration(result.get("seconds")),
        "Speed": _speed(metrics),
        "Devices": _devices(environment),
        "Processor": environment.get("processor") or MISSING,
        "Commit": _commit(environment),
    }
    return markdown_table(("", ""), list(rows.items()))


def _best_validation(result: dict[str, Any]) -> str:
    error, step = result.get("best_validation_top1_error"), result.get("best_step")
    if error is None:
        return "not measured"
    return f"top-1 error {percent(error)}" + ("" if step is None else f" after {step:,} steps")


def _speed(metrics: list[dict[str, Any]]) -> str:
    """The median over the training lines, which one slow line (compilation, a busy machine) does not move."""
    speeds = [line["images_per_second"] for line in metrics if line.get("images_per_second") is not None]
    return f"{statistics.median(speeds):,.0f} training images/s (median)" if speeds else "not measured"


def _devices(environment: dict[str, Any]) -> str:
    kinds, count = environment.get("device_kinds"), environment.get("device_count")
    if not kinds:
        return MISSING
    together = environment.get("process_count", 1)
    among = f", in {together} processes" if together > 1 else ""
    return f"{count} x {', '.join(kinds)} ({environment.get('backend')}){among}"


def _commit(environment: dict[str, Any]) -> str:
    commit = environment.get("commit")
    if commit is None:
        return "not a git checkout"
    return f"`{commit}`" + (" with uncommitted changes" if environment.get("dirty") else "")


PLACES = ("data.dir", "data.prepared")
"""Where the images were: others, or the same prepared otherwise, are other pixels."""


def _command(experiment: Experiment, base: Experiment | None) -> str:
    options = {k: v for k, v in flatten(experiment).items() if k not in MAY_DIFFER or k in PLACES}
    if base is not None:
        known = flatten(base)
        options = {k: v for k, v in options.items() if v != known[k]}
    # A run that fell back on the digits has a name of its own, which is no experiment.
    name = experiment.name if base is None else base.name
    words = [f"python launch.py --exp={shlex.quote(name)}", *(_option(k, v) for k, v in options.items())]
    # The run's own folder is finished: there the command would only print the result again.
    words.append(f"--workdir=runs/{re.sub(r'[^A-Za-z0-9_.]+', '-', experiment.name)}-again")
    return " \\\n    ".join(words)


def _option(name: str, value: Any) -> str:
    if isinstance(value, list):
        return " ".join([f"--{name}", *(str(item) for item in value)])
    return f"--{name}={shlex.quote(str(value))}"


def _versions(environment: dict[str, Any]) -> str:
    versions = {"python": environment.get("python"), **environment.get("versions", {})}
    text = ", ".join(f"{library} {version or 'not installed'}" for library, version in versions.items())
    return f"Versions: {text}; {environment.get('platform', 'platform not known')}."


def _validations(metrics: list[dict[str, Any]]) -> str:
    lines = [line for line in metrics if line["kind"] == "validation"]
    if not lines:
        return "No validation was made."
    heads = ("epoch", "step", "validation loss", "top-1 error", "top-5 error")
    return f"## Validation\n\n{markdown_table(heads, list(map(_validation_row, lines)), right=range(len(heads)))}"


def _validation_row(line: dict[str, Any]) -> list[str]:
    errors = (percent(line.get(key)) for key in ("top1_error", "top5_error"))
    return [f"{line['epoch']:.4g}", str(line["step"]), _number(line.get("loss"), "{:.4f}"), *errors]


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def write_report_again(request: Request) -> None:
    """Write a finished run's report and its picture again from its files. Raises UsageError when it is not finished."""
    workdir = Workdir(request.workdir)
    record, result = workdir.record(), workdir.result()
    if record is None or result is None:
        raise UsageError(
            f"{request.workdir} holds no finished run. The same command without --mode=report starts or continues it."
        )
    lines = read_metrics(workdir.path / "metrics.jsonl")
    trained, environment, title = from_json(record["experiment"]), record["environment"], record["data"]["title"]
    try:
        path = write_report(workdir.path, trained, environment, title, lines, result, request.shipped)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
        raise RunError(
            f"The files of {workdir.path} are damaged ({type(problem).__name__}: {problem}). Restore them from a copy."
        ) from problem
    print(f"{result_line(result)}\n{path}")


def result_line(result: dict) -> str:
    """Return the test error of a result in one line."""
    return (
        f"Test error: top-1 {percent(result['top1_error'])}, top-5 {percent(result['top5_error'])} "
        f"(accuracy {percent(1 - result['top1_error'])}) on {result['examples']:,} images."
    )
