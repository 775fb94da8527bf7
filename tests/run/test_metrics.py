"""Check the output of a training: no line is repeated or lost, and a terminal and a log show the same."""

import contextlib
import fcntl
import io
import json
import os
import pty
import resource
import struct
import termios
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from alexnet_jax.errors import RunError
from alexnet_jax.processes.terminal import fitting
from alexnet_jax.run.metrics import Metrics
from alexnet_jax.run.records import read_metrics

DATA = "digits (scikit-learn, 1,797 images)"


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def metrics(folder, *, total=20, first=0, log_every=4, stream=None, clock=time.monotonic):
    return Metrics(
        folder,
        data_title=DATA,
        total_steps=total,
        steps_per_epoch=10,
        first_step=first,
        log_every=log_every,
        stream=io.StringIO() if stream is None else stream,
        clock=clock,
    )


def train(written, first, last):
    for step in range(first, last + 1):
        written.train(step, loss=float(step), error=step / 100, rate=0.01 * step, images=32)


def write_validation(written, step):
    written.validation(step, loss=1.5, top1_error=0.25, top5_error=0.125, seconds=1.0)


def write_test(written, step, top1_error=0.5):
    written.test(step, loss=2.0, top1_error=top1_error, top5_error=0.25, examples=10)


def steps(folder, kind="train"):
    return [line["step"] for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == kind]


def events(folder):
    """Return the TensorBoard events of a run, oldest file first; a record is length, checksum, bytes, checksum."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_lines_hold_what_was_measured(tmp_path):
    before = time.time()
    with metrics(tmp_path) as written:
        train(written, 1, 8)
        written.validation(8, loss=1.5, top1_error=0.25, top5_error=0.125, seconds=3.0)
        written.test(8, loss=2.0, top1_error=0.5, top5_error=0.25, examples=10)
    first, second, validation, test = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["kind"], first["step"], first["epoch"], first["loss"]) == ("train", 4, 0.4, 4.0)
    assert first["mean_loss"] == (1 + 2 + 3 + 4) / 4
    assert second["mean_loss"] == (5 + 6 + 7 + 8) / 4
    assert second["learning_rate"] == 0.08
    assert second["images_per_second"] > 0
    assert before <= second["time"] <= time.time()
    assert (validation["kind"], validation["step"], validation["epoch"]) == ("validation", 8, 0.8)
    assert (validation["loss"], validation["top1_error"], validation["top5_error"]) == (1.5, 0.25, 0.125)
    assert validation["seconds"] == 3.0
    assert (test["kind"], test["step"], test["top1_error"], test["examples"]) == ("test", 8, 0.5, 10)
    assert {line["data"] for line in (first, second, validation, test)} == {DATA}


def test_only_the_leader_process_writes(tmp_path, capfd):
    with Metrics(tmp_path, data_title="t", total_steps=2, steps_per_epoch=1, writes=False) as written:
        written.share(1)
        train(written, 1, 1)
        with written.saving(1):
            written.note("not shown")
        write_validation(written, 1)
        write_test(written, 2)
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


def test_the_last_step_always_has_a_line(tmp_path):
    with metrics(tmp_path, total=6) as written:
        train(written, 1, 6)
    assert steps(tmp_path) == [4, 6]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["mean_loss"] == 5.5


def test_means_after_a_resume_cover_the_steps_before_it(tmp_path):
    """Every checkpoint between two lines is resumed, also an earlier one than the latest."""
    with metrics(tmp_path / "whole") as written:
        train(written, 1, 20)
    expected = [line["mean_loss"] for line in read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    for stop in range(1, 20):
        folder = tmp_path / str(stop)
        with metrics(folder) as written:
            for step in range(1, 21):
                train(written, step, step)
                with written.saving(step):
                    pass
        with metrics(folder, first=stop) as written:
            train(written, stop + 1, 20)
        assert [line["mean_loss"] for line in read_metrics(folder / "metrics.jsonl")] == expected


@pytest.mark.parametrize("content", [None, "", "[]", "[5]", "{", '{"a": 1}', '{"6": 3}', '{"6": {"losses": null}}'])
def test_a_lost_window_changes_one_mean_only(tmp_path, content):
    with metrics(tmp_path) as written:
        train(written, 1, 6)
        with written.saving(6):
            pass
    window = tmp_path / "metrics_window.json"
    window.unlink() if content is None else window.write_text(content)
    with metrics(tmp_path, first=6) as written:
        train(written, 7, 20)
        with written.saving(20):
            pass
    means = [line["mean_loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert means == [2.5, 7.5, 10.5, 14.5, 18.5]


def test_lines_are_on_disk_before_closing(tmp_path):
    written = metrics(tmp_path)
    train(written, 1, 4)
    assert steps(tmp_path) == [4]
    assert any(event.step == 4 for event in events(tmp_path))
    written.close()


def test_continuing_leaves_no_duplicate_and_no_gap(tmp_path):
    with metrics(tmp_path) as written:
        train(written, 1, 13)
        write_validation(written, 10)
    with metrics(tmp_path, first=10) as written:
        assert steps(tmp_path) == [4, 8]
        train(written, 11, 20)
    assert steps(tmp_path) == [4, 8, 12, 16, 20]
    assert steps(tmp_path, "validation") == [10]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_repeated_result_replaces_the_old_one(tmp_path):
    with metrics(tmp_path) as written:
        train(written, 1, 20)
        write_validation(written, 20)
        write_test(written, 20, top1_error=0.75)
    with metrics(tmp_path, first=20) as written:
        write_test(written, 20, top1_error=0.25)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["top1_error"] for line in lines if line["kind"] == "test"] == [0.25]
    assert steps(tmp_path) == [4, 8, 12, 16, 20]
    assert steps(tmp_path, "validation") == [20]


def test_starting_anew_removes_every_line(tmp_path):
    with metrics(tmp_path) as written:
        write_validation(written, 0)
        train(written, 1, 8)
    metrics(tmp_path).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_an_incomplete_last_line_is_skipped_and_removed(tmp_path):
    with metrics(tmp_path) as written:
        train(written, 1, 8)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "train", "st')
    assert steps(tmp_path) == [4, 8]
    with metrics(tmp_path, first=8) as written:
        assert path.read_bytes() == whole
        train(written, 9, 12)
    assert steps(tmp_path) == [4, 8, 12]


@pytest.mark.parametrize("damage", [b'{"kind": "tr\n', b"[1]\n", b'{"kind": "train"}\n', b"\xff\xfe\n", b"\n"])
def test_any_other_damaged_line_is_an_error_that_names_it(tmp_path, damage):
    with metrics(tmp_path) as written:
        train(written, 1, 8)
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + second)
    with pytest.raises(RunError, match="line 2"):
        read_metrics(path)
    with pytest.raises(RunError, match="line 2"):
        metrics(tmp_path, first=8)
    assert path.read_bytes() == first + damage + second


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"nowhere\.jsonl"):
        read_metrics(tmp_path / "nowhere.jsonl")


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with metrics(tmp_path, log_every=1) as written:
        written.train(1, loss=float("nan"), error=1.0, rate=0.1, images=1)
        written.test(1, loss=float("inf"), top1_error=0.5, top5_error=0.25, examples=10)
    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert [line["loss"] for line in lines] == [None, None]
    assert lines[1]["top1_error"] == 0.5


class Clock:
    """A clock that advances only by `sleep`."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def speeds(folder):
    return [line["images_per_second"] for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]


@pytest.mark.parametrize("how", ["validation", "test", "pause", "validation inside pause"])
def test_speed_excludes_evaluations_and_saves(tmp_path, how):
    clock = Clock()
    with metrics(tmp_path, clock=clock) as written:
        clock.sleep(1)
        train(written, 1, 3)
        if "pause" in how:
            clock.sleep(0.5)  # The time between the last step and the pause counts.
            with written.pause():
                clock.sleep(30)
                if "validation" in how:
                    write_validation(written, 3)
                clock.sleep(30)
            clock.sleep(0.5)
        else:
            clock.sleep(30)
            if how == "test":
                write_test(written, 3)
            else:
                write_validation(written, 3)
            clock.sleep(1)
        train(written, 4, 4)
    assert speeds(tmp_path) == [4 * 32 / 2]


def test_speed_is_that_of_the_steps_since_the_last_line(tmp_path):
    clock = Clock()
    with metrics(tmp_path, clock=clock) as written:
        for step in range(1, 9):
            clock.sleep(8 if step <= 4 else 2)
            train(written, step, step)
    assert speeds(tmp_path) == [32 / 8, 32 / 2]


def test_steps_fetched_together_share_the_time(tmp_path):
    clock = Clock()
    with metrics(tmp_path, clock=clock) as written:
        clock.sleep(12)
        written.share(6)
        train(written, 1, 6)  # writes the line of step 4
        clock.sleep(1)
        written.share(2)
        train(written, 7, 8)
    assert speeds(tmp_path) == [4 * 32 / 8, 4 * 32 / 5]


def test_tensorboard_hides_what_a_killed_process_left(tmp_path):
    with metrics(tmp_path) as written:
        train(written, 1, 16)
    with metrics(tmp_path, first=8) as written:
        train(written, 9, 12)
        write_validation(written, 12)
    found = events(tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    starts = [event.step for event in found if event.session_log.status == SessionLog.START]
    # TensorBoard hides older events of this step and later steps.
    assert starts == [1, 9]
    values = {(event.step, v.tag): v.simple_value for event in found for v in event.summary.value}
    assert values[12, "train/loss"] == 12.0
    assert values[12, "validation/top1_error"] == 0.25
    assert {tag for _, tag in values} == {
        *(f"train/{name}" for name in ("loss", "mean_loss", "mean_error", "learning_rate", "images_per_second")),
        *(f"validation/{name}" for name in ("loss", "top1_error", "top5_error", "seconds")),
    }


def test_standard_error_is_the_default_stream(tmp_path, capsys):
    with Metrics(tmp_path, data_title=DATA, total_steps=2, steps_per_epoch=1) as written:
        written.note("a word")
    assert capsys.readouterr().err == "a word\n"


CONTENT = ("epoch 0.80/2", "step 8/20", "loss 8.0000", "rate 0.08", "images/s", "left")


def test_plain_lines_in_a_log(tmp_path):
    stream = io.StringIO()
    with metrics(tmp_path, stream=stream) as written:
        train(written, 1, 11)
        written.note("a word")
        write_validation(written, 11)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 + 1 + 1
    assert all(part in lines[1] for part in CONTENT)
    assert lines[2] == "a word"
    assert all(part in lines[3] for part in ("validation", "loss 1.5", "top-1 error 25.00 %", "top-5 error 12.50 %"))
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_the_bar_on_a_terminal_shows_the_same(tmp_path):
    screen = Screen()
    with metrics(tmp_path, stream=screen, first=0) as written:
        train(written, 1, 8)
        written.note("a word")  # tqdm redraws the bar after it
        shown = screen.getvalue().split("\r")[-1]
    assert all(part in shown for part in CONTENT)
    assert " 40%" in shown
    assert "a word\n" in screen.getvalue().replace("\r", "\n")


def test_the_bar_continues_where_the_run_does(tmp_path):
    screen = Screen()
    with metrics(tmp_path, stream=screen, first=15):
        pass
    assert " 75%" in screen.getvalue()


@pytest.mark.parametrize("size", [(30, 120), (24, 80), (0, 0)])
def test_the_bar_fits_a_terminal_even_of_unknown_size(tmp_path, size):
    rows, columns = size
    inside, outside = pty.openpty()
    fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with open(outside, "w") as screen, metrics(tmp_path, stream=screen) as written:
        train(written, 1, 20)
    shown = b""
    # Linux raises an error at the end of a closed terminal.
    with contextlib.suppress(OSError):
        while chunk := os.read(inside, 65536):
            shown += chunk
    os.close(inside)
    last = shown.decode().rstrip().split("\r")[-1]
    assert last.startswith("100%")
    step = "" if columns == 80 else "step 20/20  "
    assert f"epoch 2.00/2  {step}loss 20.0000" in last and last.endswith("0:00 left  rate 0.2")
    assert len(last) <= (columns or 100) - 2  # the terminal shows ^C behind the cursor


def test_the_time_left_leaves_out_the_first_steps(tmp_path):
    """The first step is compiled in 100 s; those after it take 2 s each."""
    stream, now = io.StringIO(), [0.0]
    with metrics(tmp_path, stream=stream, log_every=1, clock=lambda: now[0]) as written:
        for step in range(1, 21):
            now[0] += 100.0 if step == 1 else 2.0
            train(written, step, step)
    left = [line.split("images/s  ")[1].split("  rate")[0] for line in stream.getvalue().splitlines()]
    assert left[:3] == ["- left", "0:36 left", "0:34 left"] and left[-1] == "0:00 left"


def test_results_fetched_together_count_as_one_moment(tmp_path):
    stream, now = io.StringIO(), [50.0]
    with metrics(tmp_path, stream=stream, log_every=1, clock=lambda: now[0]) as written:
        train(written, 1, 10)
        now[0] += 5.0
        train(written, 11, 15)
    assert "- left" in stream.getvalue().splitlines()[9]
    assert "0:05 left" in stream.getvalue().splitlines()[14]


def test_the_bar_says_that_the_first_step_is_compiled(tmp_path):
    screen = Screen()
    with metrics(tmp_path, stream=screen) as written:
        until = time.monotonic() + 10
        while "compiling the first step, 1 s" not in screen.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
        train(written, 1, 1)
        assert "compiling" not in screen.getvalue().split("\r")[-1]
    assert "compiling the first step, 1 s" in screen.getvalue()


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(99, "epoch step loss speed left rate"), (30, "epoch loss speed left rate"), (15, "epoch loss rate")],
)
def test_short_lines_leave_out_what_is_needed_least(columns, shown):
    fields = {name: name for name in ("epoch", "step", "loss", "speed", "left", "rate")}
    assert fitting(fields, columns).split() == shown.split()


def test_a_full_disk_is_an_error_and_keeps_the_old_lines(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = metrics(tmp_path, total=1000, log_every=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(RunError, match="Cannot write the metrics .* last checkpoint"):
            train(written, 1, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    written.close()
    kept = steps(tmp_path)
    assert len(kept) > 5
    assert kept == list(range(1, len(kept) + 1))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Cannot write the metrics in .*file"):
        metrics(tmp_path / "file")


def test_an_exception_closes_the_files_and_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError), metrics(tmp_path) as written:
        train(written, 1, 4)
        _ = 1 / 0
    written.close()
    assert steps(tmp_path) == [4]
