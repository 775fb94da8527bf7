"""What a run writes while it trains: metrics.jsonl, TensorBoard events, and a bar or plain lines on the terminal.

metrics.jsonl is the record the report and the figures are made from: one JSON object a line, in order of steps. This
file knows no jax, so that a finished run can be read without a device.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NotRequired, Self, TypedDict, get_type_hints

from alexnet_jax import files
from alexnet_jax.errors import RunError
from alexnet_jax.experiment import fits
from alexnet_jax.formatting import countdown, percent


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


class Metrics:
    """The three outputs of a training, kept in step with each other; a context manager.

    Steps are numbers of steps done, so the first is 1. A number that is not finite is written as null: JSON has no NaN.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_title: str,
        total_steps: int,
        steps_per_epoch: int,
        first_step: int = 0,
        log_every: int = 50,
        stream: IO[str] | None = None,
    ):
        """Open the files in `folder` (made when missing), going on after `first_step` steps.

        Lines of later steps, left by a process that was killed, are removed first; with first_step=0 every line is.
        `stream` is standard error unless another is given.
        Raises RunError when the old lines are damaged or the files cannot be written.
        """
        self.folder = Path(folder)
        self._data_title = data_title
        self._steps_per_epoch = steps_per_epoch
        self._total_steps = total_steps
        self._log_every = log_every
        with _writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lines = _Lines(self.folder / "metrics.jsonl", first_step)
            self._events = _Events(self.folder / "tensorboard", first_step)
        self._terminal = _Terminal(stream or sys.stderr, total_steps, steps_per_epoch, first_step)
        self._clock = _Clock()
        self._losses: list[float] = []
        self._errors: list[float] = []
        self._images = 0
        self._speed: float | None = None
        self._measured = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def train(self, step: int, *, loss: float, error: float, rate: float, images: int) -> None:
        """Count one training step; call it for every step, in order. Each `log_every` steps, and at the last, write a line.

        `loss` is the step's mean loss per image, `error` its share of wrong answers (both of the images as trained on, dropout
        at work), `rate` the learning rate it used, `images` how many it saw. The line's images_per_second leaves out validation,
        tests and `pause`; compilation counts in the first line of a process.
        """
        self._losses.append(loss)
        self._errors.append(error)
        self._images += images
        seconds = self._clock.lap()
        due = step % self._log_every == 0 or step == self._total_steps
        # Between two lines the bar keeps the last line's speed, which is steadier than that of a few steps.
        if due or not self._measured:
            self._speed = self._images / seconds if seconds > 0 else None
        self._terminal.train(step, loss=loss, rate=rate, speed=self._speed, due=due)
        if due:
            mean, wrong = (sum(numbers) / len(numbers) for numbers in (self._losses, self._errors))
            values = {"loss": loss, "mean_loss": mean, "mean_error": wrong, "learning_rate": rate}
            values |= {"images_per_second": self._speed}
            self._write("train", step, values)
            self._measured = True
            self._losses, self._errors, self._images = [], [], 0
            self._clock.restart()

    def share(self, steps: int) -> None:
        """The next so many steps were read at once: the time since the last one counts for each of them in equal parts."""
        self._clock.share(steps)

    def validation(self, step: int, *, loss: float, top1_error: float, top5_error: float, seconds: float) -> None:
        """Write one validation, which took `seconds`; call it right after evaluating. Errors are fractions from 0 to 1."""
        values = {"loss": loss, "top1_error": top1_error, "top5_error": top5_error, "seconds": seconds}
        self._evaluation("validation", step, values)

    def test(self, step: int, values: dict[str, Any]) -> None:
        """Write the test set's result, such as {"top1_error": 0.11, "loss": 0.5, "examples": 10000}; call it right after."""
        self._evaluation("test", step, values)

    def note(self, text: str) -> None:
        """Show the user a line without breaking the bar."""
        self._terminal.note(text)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave what happens inside (a save, an evaluation) out of images_per_second."""
        self._clock.stop()
        try:
            yield
        finally:
            self._clock.go()

    def close(self) -> None:
        """Close the bar and the files; a second call does nothing."""
        self._terminal.close()
        with _writable(self.folder), contextlib.closing(self._lines):
            self._events.close()

    def _evaluation(self, kind: str, step: int, values: dict[str, Any]) -> None:
        # Everything since the last step was the evaluation: dropping it needs no trust in the caller's own clock.
        self._clock.go()
        self._write(kind, step, values)
        self._terminal.note(_evaluation_text(kind, step, step / self._steps_per_epoch, values))

    def _write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        head = {"kind": kind, "step": step, "epoch": step / self._steps_per_epoch}
        tail = {"time": time.time(), "data": self._data_title}
        body = {key: _json_value(value) for key, value in values.items() if key not in head | tail}
        with _writable(self.folder):
            self._lines.write(head | body | tail)
            self._events.write(kind, step, body)


class Unwritten(Metrics):
    """What the other processes of a run make of their metrics, which are those of the one that writes: nothing."""

    def __init__(self, folder: Path, **_: Any):
        self.folder = Path(folder)

    def train(self, step: int, *, loss: float, error: float, rate: float, images: int) -> None:
        """Nothing."""

    def share(self, steps: int) -> None:
        """Nothing."""

    def validation(self, step: int, *, loss: float, top1_error: float, top5_error: float, seconds: float) -> None:
        """Nothing."""

    def test(self, step: int, values: dict[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing is counted."""
        yield

    def close(self) -> None:
        """Nothing is open."""


def read_metrics(path: Path) -> list[Line]:
    """Every line of a metrics.jsonl, in order; a last line that a killed process left half-written is passed over.

    Raises RunError naming the line when another one is damaged, or the file when it cannot be read.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        message = f"Cannot read the metrics {path}: {error.strerror}. Expected the metrics.jsonl of a run."
        raise RunError(message) from error
    # A whole line ends with a newline, so what follows the last one is empty or half-written.
    return [_parse(line, number, path) for number, line in enumerate(lines[:-1], start=1)]


def _parse(line: bytes, number: int, path: Path) -> Line:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if isinstance(value, dict) and value.get("kind") in KINDS:
        kind = KINDS[value["kind"]]
        if value.keys() >= _Line.__required_keys__ and all(fits(value[k], v) for k, v in kind.items() if k in value):
            return value  # pyright: ignore[reportReturnType] - checked above
    shown = line[:60].decode(errors="replace")
    raise RunError(
        f"{path}, line {number}: found {shown!r}, expected a JSON object with a kind and a step. "
        "The file was damaged; remove that line, or start the run anew with --overwrite."
    )


KINDS = {"train": get_type_hints(TrainLine)} | dict.fromkeys(("validation", "test"), get_type_hints(EvaluationLine))
"""{kind of line: {key: type}}"""


class _Lines:
    """metrics.jsonl, opened to go on after `first_step`."""

    def __init__(self, path: Path, first_step: int):
        self._path = path
        old = read_metrics(path) if first_step and path.exists() else []
        kept = [line for line in old if line["step"] <= first_step]
        self._replace(kept)
        # A process killed between a result and the end of its step's checkpoint writes that result again.
        self._repeatable = {(line["kind"], line["step"]) for line in kept if line["step"] == first_step}
        self._file = self._open()

    def write(self, line: dict[str, Any]) -> None:
        """Append one line, for good once this returns unless the machine itself fails."""
        key = (line["kind"], line["step"])
        if key in self._repeatable:
            self._repeatable.discard(key)
            self._file.close()
            self._replace([old for old in read_metrics(self._path) if (old["kind"], old["step"]) != key])
            self._file = self._open()
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> IO[str]:
        return self._path.open("a", encoding="ascii")

    def _replace(self, lines: list[Line]) -> None:
        files.write(self._path, "".join(json.dumps(line) + "\n" for line in lines))


class _Events:
    """TensorBoard scalars named like train/loss."""

    def __init__(self, folder: Path, first_step: int):
        # Not SummaryWriter: its thread dies on a full disk without a word, and closing it then waits for ever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder.mkdir(exist_ok=True)
        # Without a suffix of its own a restart within the same second would overwrite the first file.
        self._writer: Any = EventsWriter(str(folder / "events"), filename_suffix=f".{os.getpid()}.from{first_step}")
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=first_step + 1, session_log=start))

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write every number among `values` (others, such as null, have no place in a curve)."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        scalars = [Summary.Value(tag=f"{kind}/{k}", simple_value=v) for k, v in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        # A second close of EventsWriter is an error.
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _add(self, event: Any) -> None:
        self._writer.write_event(event)
        self._writer.flush()


class _Terminal:
    """A tqdm bar on a terminal, plain lines anywhere else; both say the same."""

    def __init__(self, stream: IO[str], total_steps: int, steps_per_epoch: int, first_step: int):
        self._stream = stream
        self._total = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._first_step = first_step
        self._started = time.monotonic()
        self._bar = self._new_bar() if stream.isatty() else None

    def train(self, step: int, *, loss: float, rate: float, speed: float | None, due: bool) -> None:
        if self._bar is None and not due:
            return
        epochs = f"epoch {step / self._steps_per_epoch:.2f}/{self._total / self._steps_per_epoch:g}"
        images = "-" if speed is None else f"{speed:,.0f}"
        text = f"{epochs}  step {step}/{self._total}  loss {loss:.4f}  {images} images/s"
        # A bar on 80 columns is cut off at the end: the rate is what a user misses least.
        text += f"  {countdown(self._seconds_left(step))} left  rate {rate:.3g}"
        if self._bar is None:
            self.note(text)
        else:
            self._bar.set_description_str(text, refresh=False)
            self._bar.update(step - self._bar.n)

    def note(self, text: str) -> None:
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self) -> Any:
        from tqdm import tqdm

        # Where the terminal does not tell its size (some containers), tqdm would draw a bar of width zero.
        size: dict[str, Any] = {"dynamic_ncols": True} if _tells_size(self._stream) else {"ncols": 100, "nrows": 24}
        form = "{percentage:3.0f}%{bar} {desc}"
        return tqdm(total=self._total, initial=self._first_step, file=self._stream, bar_format=form, **size)

    def _seconds_left(self, step: int) -> float:
        """From the whole process so far, evaluations and saves included: they will come again."""
        elapsed = time.monotonic() - self._started
        return elapsed / max(step - self._first_step, 1) * (self._total - step)


class _Clock:
    """Seconds spent training since the last line, without what was paused."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._since: float | None = time.monotonic()
        self._each, self._shares = 0.0, 0

    def share(self, laps: int) -> None:
        """Hand the time up to now out to so many laps."""
        now = time.monotonic()
        self._each = 0.0 if self._since is None else (now - self._since) / laps
        self._since, self._shares = now, laps

    def lap(self) -> float:
        """Count the time up to now, or a share of what was measured, and return the total in seconds."""
        if self._shares:
            self._shares -= 1
            self._counted += self._each
            return self._counted
        now = time.monotonic()
        if self._since is not None:
            self._counted += now - self._since
        self._since = now
        return self._counted

    def restart(self) -> None:
        self._counted = 0.0

    def stop(self) -> None:
        self.lap()
        self._since = None

    def go(self) -> None:
        """Go on from now; uncounted time before now is dropped."""
        self._since = time.monotonic()


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn a failed write into a RunError with the remedy."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write the metrics in {folder}: {error.strerror}. Make room or give write permission, then repeat "
            "the command: it goes on from the last checkpoint."
        ) from error


def _tells_size(stream: IO[str]) -> bool:
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except OSError:  # Also io.UnsupportedOperation: a stream without a file descriptor.
        return False


def _json_value(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _evaluation_text(kind: str, step: int, epoch: float, values: dict[str, Any]) -> str:
    names = {"top1_error": "top-1 error", "top5_error": "top-5 error"}
    parts = [] if values.get("loss") is None else [f"loss {values['loss']:.4f}"]
    parts += [f"{name} {percent(values[key])}" for key, name in names.items() if values.get(key) is not None]
    return "  ".join([f"{kind} at epoch {epoch:.2f} (step {step}):", *parts])
