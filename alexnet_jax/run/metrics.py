"""The output of a training: metrics.jsonl, TensorBoard events, and a progress bar or plain lines on the terminal."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from alexnet_jax import files
from alexnet_jax.errors import RunError, remedy
from alexnet_jax.formatting import percent
from alexnet_jax.processes.terminal import Progress
from alexnet_jax.run.records import Line, MetricsFile

WINDOW = "metrics_window.json"

KEPT = 20
"""Number of checkpoints whose windows are kept: as many as a run may fall back over."""


class Metrics:
    """The metrics of a training, written to every output at once; a context manager.

    A step's number is the number of steps done after it, so the first step is 1. Numbers that are not finite are written as
    null, because JSON has no NaN.
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
        writes: bool = True,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Open the files in `folder` (made when missing) to continue after `first_step` steps.

        Lines of later steps, written by a process that was killed, are removed first; with first_step=0 every line is.
        With writes=False nothing is opened, written or shown: only the leader process of a run writes.
        `stream` is standard error by default, `clock` returns seconds.
        Raises RunError when the old lines are damaged or the files cannot be written.
        """
        self.folder = Path(folder)
        self._data_title = data_title
        self._steps_per_epoch = steps_per_epoch
        self._total_steps = total_steps
        self._log_every = log_every
        self._files: list[MetricsFile | _Events] = []
        self._terminal: Progress | None = None
        if writes:
            with _writable(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._files.append(MetricsFile(self.folder / "metrics.jsonl", first_step))
                self._files.append(_Events(self.folder / "tensorboard", first_step))
            self._terminal = Progress(stream or sys.stderr, total_steps, steps_per_epoch, first_step, clock)
        self._clock = _Clock(clock)
        self._window = Window(self.folder / WINDOW, writes)
        self._losses, self._errors = self._window.restore(first_step)
        self._images = 0
        self._speed: float | None = None
        self._measured = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def train(self, step: int, *, loss: float, error: float, rate: float, images: int) -> None:
        """Count one training step; called for every step, in order. Every `log_every` steps, and at the last, write a line.

        `loss` is the step's mean loss per image and `error` its fraction of wrong answers, both on the images as trained on,
        with dropout; `rate` is its learning rate, `images` its number of images. The line's images_per_second excludes
        evaluations and `pause`, and includes compilation in the first line of a process.
        """
        self._losses.append(loss)
        self._errors.append(error)
        self._images += images
        seconds = self._clock.lap()
        due = step % self._log_every == 0 or step == self._total_steps
        # Between two lines the bar shows the last line's speed, which is steadier than that of a few steps.
        if due or not self._measured:
            self._speed = self._images / seconds if seconds > 0 else None
        if self._terminal is not None:
            self._terminal.train(step, loss=loss, rate=rate, speed=self._speed, due=due)
        if due:
            mean, wrong = (sum(numbers) / len(numbers) for numbers in (self._losses, self._errors))
            values = {"loss": loss, "mean_loss": mean, "mean_error": wrong, "learning_rate": rate}
            self._write("train", step, values | {"images_per_second": self._speed})
            self._measured = True
            self._losses, self._errors, self._images = [], [], 0
            self._clock.restart()

    def share(self, steps: int) -> None:
        """Divide the time since the last step equally among the next `steps` steps, whose results were fetched together."""
        self._clock.share(steps)

    def validation(self, step: int, *, loss: float, top1_error: float, top5_error: float, seconds: float) -> None:
        """Write one validation, which took `seconds`; called right after it. Errors are fractions from 0 to 1."""
        values = {"loss": loss, "top1_error": top1_error, "top5_error": top5_error, "seconds": seconds}
        self._evaluation("validation", step, values)

    def test(self, step: int, *, loss: float, top1_error: float, top5_error: float, examples: int) -> None:
        """Write the result on the test images; called right after the evaluation. Errors are fractions from 0 to 1."""
        values = {"loss": loss, "top1_error": top1_error, "top5_error": top5_error, "examples": examples}
        self._evaluation("test", step, values)

    def note(self, text: str) -> None:
        """Show a line to the user without breaking the bar."""
        if self._terminal is not None:
            self._terminal.note(text)

    @contextlib.contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Exclude the block, which saves the checkpoint of a step, from images_per_second.

        The losses since the last line are saved too, so that a run that continues there writes the same means.
        """
        with self.pause(), _writable(self.folder):
            self._window.save(step, self._losses, self._errors)
            yield

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the block (a save, an evaluation) from images_per_second."""
        self._clock.stop()
        try:
            yield
        finally:
            self._clock.start()

    def close(self) -> None:
        """Close the bar and the files; a second call does nothing."""
        if self._terminal is not None:
            self._terminal.close()
        with _writable(self.folder), contextlib.ExitStack() as closing:
            for file in self._files:
                closing.callback(file.close)

    def _evaluation(self, kind: str, step: int, values: dict[str, float]) -> None:
        # All time since the last step was spent on the evaluation, whatever the caller measured.
        self._clock.start()
        self._write(kind, step, values)
        errors = (f"top-{k} error {percent(values[f'top{k}_error'])}" for k in (1, 5))
        words = f"{kind} at epoch {step / self._steps_per_epoch:.2f} (step {step}):", f"loss {values['loss']:.4f}", *errors
        self.note("  ".join(words))

    def _write(self, kind: str, step: int, values: Mapping[str, float | None]) -> None:
        head = {"kind": kind, "step": step, "epoch": step / self._steps_per_epoch}
        body = {key: value if value is None or math.isfinite(value) else None for key, value in values.items()}
        line: Any = head | body | {"time": time.time(), "data": self._data_title}
        with _writable(self.folder):
            for file in self._files:
                file.write(line)


class Window:
    """The losses and errors of the steps between the last line and a checkpoint, for the latest checkpoints."""

    def __init__(self, path: Path, writes: bool):
        self._path, self._writes = path, writes

    def save(self, step: int, losses: list[float], errors: list[float]) -> None:
        """Save the numbers of a checkpoint's window."""
        if self._writes:
            kept = {name: value for name, value in self._read().items() if int(name) < step}
            latest = dict(list(kept.items())[1 - KEPT :]) | {str(step): (losses, errors)}
            files.write_json(self._path, {name: {"losses": x, "errors": y} for name, (x, y) in latest.items()})

    def restore(self, step: int) -> tuple[list[float], list[float]]:
        """Return (losses, errors) of a checkpoint's window; empty lists if they were not saved."""
        return self._read().get(str(step), ([], []))

    def _read(self) -> dict[str, tuple[list[float], list[float]]]:
        try:
            values = json.loads(self._path.read_text())
            found = {k: (list(map(float, v["losses"])), list(map(float, v["errors"]))) for k, v in values.items()}
            return dict(sorted(found.items(), key=lambda item: int(item[0])))
        except (OSError, ValueError, TypeError, AttributeError, KeyError):  # lost or damaged: one line's means depend on it
            return {}


class _Events:
    """TensorBoard scalars with names such as train/loss."""

    def __init__(self, folder: Path, first_step: int):
        # Not SummaryWriter: its thread dies silently on a full disk, and closing it then waits for ever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder.mkdir(exist_ok=True)
        # Without a suffix of its own a restart within the same second would overwrite the first file.
        self._writer: Any = EventsWriter(str(folder / "events"), filename_suffix=f".{os.getpid()}.from{first_step}")
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=first_step + 1, session_log=start))

    def write(self, line: Line) -> None:
        """Write the line's measured numbers. None is left out, because a curve cannot show it."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        numbers = {k: v for k, v in line.items() if k not in ("step", "epoch", "time") and isinstance(v, int | float)}
        scalars = [Summary.Value(tag=f"{line['kind']}/{k}", simple_value=v) for k, v in numbers.items()]
        self._add(Event(wall_time=time.time(), step=line["step"], summary=Summary(value=scalars)))

    def close(self) -> None:
        # A second close of EventsWriter is an error.
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _add(self, event: Any) -> None:
        self._writer.write_event(event)
        self._writer.flush()


class _Clock:
    """The seconds spent on training since the last line, without pauses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counted = 0.0
        self._since: float | None = clock()
        self._each, self._shares = 0.0, 0

    def share(self, laps: int) -> None:
        """Divide the time until now equally among the next `laps` laps."""
        now = self._clock()
        self._each = 0.0 if self._since is None else (now - self._since) / laps
        self._since, self._shares = now, laps

    def lap(self) -> float:
        """Add the time until now, or one share, and return the total in seconds."""
        if self._shares:
            self._shares -= 1
            self._counted += self._each
            return self._counted
        now = self._clock()
        if self._since is not None:
            self._counted += now - self._since
        self._since = now
        return self._counted

    def restart(self) -> None:
        self._counted = 0.0

    def stop(self) -> None:
        self.lap()
        self._since = None

    def start(self) -> None:
        """Count from now on; time that was not counted yet is dropped."""
        self._since = self._clock()


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn a failed write into a RunError with the remedy."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write the metrics in {folder}: {error.strerror}. {remedy(error, 'Is the folder writable?')} Then repeat "
            "the command: it continues from the last checkpoint."
        ) from error
