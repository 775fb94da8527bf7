"""The progress of a training on the terminal of this process: a bar, or plain lines where there is no terminal."""

import os
import threading
from collections.abc import Callable
from typing import IO, Any

from alexnet_jax.formatting import countdown

UNKNOWN_SIZE = (100, 24)
"""Columns and rows of a terminal that does not report its size, as in some containers."""

ROOM = 4
"""Columns that the bar leaves free for the ^C of a user; otherwise the terminal breaks the line, and the bar remains on it."""

SILENCE = 10.0
"""Seconds without a result after which a log says that the first step is being compiled."""

AT_ONCE = 0.05
"""Seconds: results that arrive closer together were fetched together."""


class Progress:
    """A tqdm bar on a terminal, plain lines elsewhere, with the same content."""

    def __init__(
        self, stream: IO[str], total_steps: int, steps_per_epoch: int, first_step: int, clock: Callable[[], float]
    ):
        self._stream = stream
        self._total = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._clock = clock
        self._anchor: tuple[int, float] | None = None  # the step, and the time, from which the time left is extrapolated
        self._started = threading.Event()
        self._bar = self._new_bar(first_step) if stream.isatty() else None
        show = self._announce_compilation if self._bar is None else self._show_compilation
        threading.Thread(target=show, daemon=True, name="compilation").start()

    def train(self, step: int, *, loss: float, rate: float, speed: float | None, due: bool) -> None:
        """Show the result of a step: on a bar always, as a line if it is `due`."""
        self._started.set()
        left = self._seconds_left(step)
        if self._bar is None and not due:
            return
        fields = {
            "epoch": f"epoch {step / self._steps_per_epoch:.2f}/{self._total / self._steps_per_epoch:g}",
            "step": f"step {step}/{self._total}",
            "loss": f"loss {loss:.4f}",
            "speed": "- images/s" if speed is None else f"{speed:,.0f} images/s",
            "left": "- left" if left is None else f"{countdown(left)} left",
            "rate": f"rate {rate:.3g}",
        }
        if self._bar is None:
            self.note("  ".join(fields.values()))
        else:
            self._bar.set_description_str(fitting(fields, self._columns() - len("100%# ")), refresh=False)
            self._bar.update(step - self._bar.n)

    def note(self, text: str) -> None:
        """Show a line without breaking the bar."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def close(self) -> None:
        """Close the bar; a second call does nothing."""
        self._started.set()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _new_bar(self, first_step: int) -> Any:
        from tqdm import tqdm

        form = "{percentage:3.0f}%{bar} {desc}"
        columns, rows = self._columns(), _terminal_size(self._stream)[1]
        bar = tqdm(
            total=self._total, initial=first_step, file=self._stream, bar_format=form, ncols=columns, nrows=rows
        )
        # tqdm asks this function before it draws; its own one returns zeros where the terminal does not report its size.
        bar.dynamic_ncols = lambda _: (self._columns(), _terminal_size(self._stream)[1])
        return bar

    def _columns(self) -> int:
        return _terminal_size(self._stream)[0] - ROOM

    def _announce_compilation(self) -> None:
        """Print one line if the first result takes long."""
        if not self._started.wait(SILENCE):
            self.note("Compiling the first step. Later starts reuse the compiled program (--train.compile_cache).")

    def _show_compilation(self) -> None:
        """Show the seconds until the first result, most of which the compiler takes."""
        begun, bar = self._clock(), self._bar
        while not self._started.wait(1):
            bar.set_description_str(f"compiling the first step, {self._clock() - begun:.0f} s")

    def _seconds_left(self, step: int) -> float | None:
        """Extrapolate the time since the first results, with evaluations and saves, which will recur.

        The steps before them include compilation. None is returned until there are later results.
        """
        now = self._clock()
        if self._anchor is None or now - self._anchor[1] < AT_ONCE:
            self._anchor = step, now if self._anchor is None else self._anchor[1]
            return 0.0 if step == self._total else None
        first, since = self._anchor
        return (now - since) / (step - first) * (self._total - step)


def fitting(fields: dict[str, str], columns: int) -> str:
    """Join the fields. Where the line is too short, those that users need least are left out, in the order step, speed, left."""
    fields = dict(fields)
    for name in ("step", "speed", "left"):
        if len("  ".join(fields.values())) > columns:
            del fields[name]
    return "  ".join(fields.values())


def _terminal_size(stream: IO[str]) -> tuple[int, int]:
    """Return (columns, rows) of a terminal."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:  # also io.UnsupportedOperation: a stream without a file descriptor
        return UNKNOWN_SIZE
    return (size.columns, size.lines) if min(size) > 0 else UNKNOWN_SIZE
