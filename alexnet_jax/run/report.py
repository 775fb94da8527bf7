"""report.md: what a run reached, on which data, in which environment, and the command that repeats it."""

import itertools
import re
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_jax import files
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import MAY_DIFFER, Experiment, flatten
from alexnet_jax.formatting import MISSING, duration, markdown_table, percent
from alexnet_jax.modes import Request
from alexnet_jax.run.learning_curves import draw_learning_curves
from alexnet_jax.run.records import Environment, Line, RunRecord, RunResult, read_metrics
from alexnet_jax.run.workdir import Workdir

CURVES = "figures/learning_curves.png"
"""The report's picture, relative to the run's folder."""


def write_report(
    folder: Path, record: RunRecord, metrics: Sequence[Line], result: RunResult, shipped: Experiment | None = None
) -> Path:
    """Write report.md and figures/learning_curves.png into `folder`; return the report's path.

    `metrics` are the lines of `read_metrics`. `shipped` is the experiment as its file under experiments/ defines it: with it
    the command that repeats the run lists only the options that differ, without it every option that matters.
    """
    experiment, environment, title = record.experiment, record.environment, record.data.title
    draw_learning_curves(metrics, folder / CURVES, experiment.name, title, experiment.data.views)
    sections = [
        f"# {experiment.name}",
        _headline(title, result),
        f"![Learning curves]({CURVES})",
        _facts(record, metrics, result),
        f"Repeat it with\n\n```\n{_command(experiment, shipped)}\n```",
        _versions(environment),
        _validations(metrics),
    ]
    path = folder / "report.md"
    files.write(path, "\n\n".join(sections) + "\n")
    return path


def kept_report(workdir: Workdir, result: RunResult, shipped: Experiment) -> Path:
    """Return the path of a finished run's report, which is written again if it was lost. Raises RunError as `read_metrics`."""
    path, record, metrics = workdir.path / "report.md", workdir.record(), workdir.path / "metrics.jsonl"
    if path.exists() or record is None:
        return path
    return write_report(workdir.path, record, read_metrics(metrics) if metrics.exists() else [], result, shipped)


def _headline(title: str, result: RunResult) -> str:
    errors = f"Test top-1 {_error_and_accuracy(result.top1_error)}, top-5 {_error_and_accuracy(result.top5_error)}"
    return f"**{errors}, on {result.examples:,} test images of {title}.**"


def _error_and_accuracy(error: float) -> str:
    return f"error {percent(error)} (accuracy {percent(1 - error)})"


def _facts(record: RunRecord, metrics: Sequence[Line], result: RunResult) -> str:
    views = record.experiment.data.views
    rows = {
        "Data": record.data.title,
        "Views of an image": f"in the test the mean of {views}, in validations the central one" if views > 1 else "one",
        "Test loss": _number(result.loss, "{:.4f} nats per image"),
        "Best validation": _best_validation(result),
        "Trained for": f"{_number(result.epochs, '{:g} epochs')}, {result.steps:,} steps",
        "Time": duration(result.seconds),
        "Speed": _speed(metrics),
        "Devices": _devices(record.environment),
        "Processor": record.environment.processor or MISSING,
        "Allocator": _allocator(record.environment),
        "Commit": _commit(record.environment),
    }
    if record.environment.settings:
        rows["Settings of jax"] = ", ".join(f"`{name}={value}`" for name, value in record.environment.settings.items())
    return markdown_table(("", ""), list(rows.items()))


def _best_validation(result: RunResult) -> str:
    if result.best_validation_top1_error is None:
        return "not measured"
    after = "" if result.best_step is None else f" after {result.best_step:,} steps"
    return f"top-1 error {percent(result.best_validation_top1_error)}{after}"


def _speed(metrics: Sequence[Line]) -> str:
    """Return the median over the training lines, which one slow line (compilation, a busy machine) does not change."""
    speeds = [speed for line in metrics if (speed := line.get("images_per_second")) is not None]
    return f"{statistics.median(speeds):,.0f} training images/s (median)" if speeds else "not measured"


def _devices(environment: Environment) -> str:
    if not environment.device_kinds:
        return MISSING
    count, kinds = environment.device_count, ", ".join(environment.device_kinds)
    processes = f", in {environment.process_count} processes" if environment.process_count > 1 else ""
    return f"{count} x {kinds} ({environment.backend}){processes}"


def _allocator(environment: Environment) -> str:
    if environment.keeps_memory is None:
        return MISSING
    return "keeps freed memory (--train.tune_allocator)" if environment.keeps_memory else "as the system has it"


def _commit(environment: Environment) -> str:
    if environment.commit is None:
        return "not a git checkout"
    return f"`{environment.commit}`" + (" with uncommitted changes" if environment.dirty else "")


SOURCES = ("data.dir", "data.prepared")
"""Options that choose the files of the images: other files, or the same ones prepared differently, hold other pixels."""


def _command(experiment: Experiment, shipped: Experiment | None) -> str:
    options = {k: v for k, v in flatten(experiment).items() if k not in MAY_DIFFER or k in SOURCES}
    if shipped is not None:
        known = flatten(shipped)
        options = {k: v for k, v in options.items() if v != known[k]}
    # A run that fell back to the digits has its own name, which no experiment has.
    name = experiment.name if shipped is None else shipped.name
    words = [f"python launch.py --exp={shlex.quote(name)}", *(_option(k, v) for k, v in options.items())]
    # In the run's own folder, which holds a finished run, the command would only print the result again.
    words.append(f"--workdir=runs/{re.sub(r'[^A-Za-z0-9_.]+', '-', experiment.name)}-again")
    return " \\\n    ".join(words)


def _option(name: str, value: Any) -> str:
    if isinstance(value, list):
        return " ".join([f"--{name}", *(str(item) for item in value)])
    return f"--{name}={shlex.quote(str(value))}"


def _versions(environment: Environment) -> str:
    versions = {"python": environment.python, **environment.versions}
    text = ", ".join(f"{library} {version or 'not installed'}" for library, version in versions.items())
    return f"Versions: {text}; {environment.platform or 'platform not known'}."


def _validations(metrics: Sequence[Line]) -> str:
    rows = [_validation_row(line) for line in metrics if line["kind"] == "validation"]
    if not rows:
        return "No validation was made."
    heads = ("epoch", "step", "validation loss", "top-1 error", "top-5 error")
    return f"## Validation\n\n{markdown_table(heads, rows, right=range(len(heads)))}"


def _validation_row(line: Line) -> list[str]:
    errors = percent(line.get("top1_error")), percent(line.get("top5_error"))
    return [f"{line['epoch']:.4g}", str(line["step"]), _number(line.get("loss"), "{:.4f}"), *errors]


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else form.format(value)


def write_report_again(request: Request) -> None:
    """Write the report of a finished run again from its files. Raises UsageError when the run is not finished."""
    workdir = Workdir(request.workdir)
    record, result = workdir.record(), workdir.result()
    if record is None or result is None:
        raise UsageError(
            f"{request.workdir} holds no finished run. The same command without --mode=report starts or continues it."
        )
    lines = read_metrics(workdir.path / "metrics.jsonl")
    try:
        path = write_report(workdir.path, record, lines, result, request.shipped)
    except (ArithmeticError, ValueError) as problem:  # numbers that cannot be formatted or drawn
        raise RunError(
            f"The files of {workdir.path} are damaged ({type(problem).__name__}: {problem}). Restore them from a copy."
        ) from problem
    print(f"{result_line(result.top1_error, result.top5_error, result.examples)}\n{path}")


def training_seconds(lines: Sequence[Line]) -> float:
    """Return the wall time between the lines of metrics.jsonl, without the gaps between two processes of the run.

    Where the clock was set back, the usual time between two lines is counted.
    """
    gaps = [after["time"] - before["time"] for before, after in itertools.pairwise(lines)]
    forward = sorted(gap for gap in gaps if gap >= 0)
    usual = forward[len(forward) // 2] if forward else 0.0
    return sum(usual if gap < 0 else gap for gap in gaps if gap < 60 + 20 * usual)


def result_line(top1_error: float, top5_error: float, examples: int) -> str:
    """Return the errors on the test images in one line. Errors are fractions."""
    return (
        f"Test error: top-1 {percent(top1_error)}, top-5 {percent(top5_error)} (accuracy {percent(1 - top1_error)}) "
        f"on {examples:,} images."
    )
