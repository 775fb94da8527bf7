"""Check the folder of a run: its lock, when it is resumed, what may be deleted, and that finished runs are kept."""

import dataclasses
import errno
import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import LEARNING_EPOCHS, ROOT, command, contents, epochs, main, result, train

from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import DIGITS, Experiment, Optim, Train
from alexnet_jax.run.records import DataIdentity, Environment, RunRecord
from alexnet_jax.run.workdir import CONTENTS, Workdir

pytest_plugins = ["running"]

EXPERIMENT = Experiment("e", data=DIGITS, train=Train(epochs=2, seed=3))
RECORD = RunRecord(EXPERIMENT, DataIdentity("digits", "f"), Environment(python="3.11", device_kinds=("cpu",)))


@pytest.fixture
def workdir(tmp_path):
    """Return the folder of a run that has started."""
    workdir = Workdir(tmp_path / "runs" / "e")
    with workdir.locked():
        workdir.write_record(RECORD)
    return workdir


def changed(**train):
    return Experiment("e", data=DIGITS, train=Train(**{"epochs": 2, "seed": 3} | train))


# --- the lock --------------------------------------------------------------------------------------------------------


def test_two_handles_cannot_work_in_one_folder(workdir):
    with (
        workdir.locked(),
        pytest.raises(UsageError, match="Another process.*--workdir"),
        Workdir(workdir.path).locked(),
    ):
        pass
    with workdir.locked():  # the lock is free again
        pass


def test_the_lock_of_a_killed_process_is_released(workdir):
    program = (
        "import pathlib, sys\n"
        "from alexnet_jax.run.workdir import Workdir\n"
        "with Workdir(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, workdir.path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match="Another process"), workdir.locked():
            pass
        holder.kill()
    with workdir.locked():
        pass


def test_a_file_system_without_locks_is_reported(workdir, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with workdir.locked():
        assert f"{workdir.path} cannot be locked (Function not implemented)" in capsys.readouterr().out


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file.*Choose another"), Workdir(tmp_path / "file" / "run").locked():
        pass


# --- resuming --------------------------------------------------------------------------------------------------------


def test_record_is_read_back(workdir):
    assert workdir.experiment() == EXPERIMENT
    assert workdir.record() == RECORD
    assert workdir.result() is None


def test_same_experiment_continues(workdir):
    workdir.check_continues(EXPERIMENT, None, overwrite=False)
    workdir.check_continues(changed(log_every=1), None, overwrite=False)


def test_new_or_empty_folder_starts(tmp_path):
    Workdir(tmp_path / "new").check_continues(EXPERIMENT, None, overwrite=False)
    Workdir(tmp_path).check_continues(EXPERIMENT, None, overwrite=False)


def trained(workdir):
    """Add a checkpoint, from which a training with other options must not resume, and return the folder."""
    (workdir.path / "checkpoints" / "39").mkdir(parents=True)
    return workdir


def test_a_run_without_a_checkpoint_may_start_with_other_options(workdir):
    workdir.check_continues(changed(seed=4), "/elsewhere/39", overwrite=False)
    with pytest.raises(UsageError):
        trained(workdir).check_continues(changed(seed=4), None, overwrite=False)


@pytest.mark.parametrize("name", [".lock", ".experiment.json.1234.tmp", ".DS_Store", ".nfs0001"])
def test_hidden_files_do_not_make_a_folder_foreign(tmp_path, name):
    (tmp_path / name).touch()
    Workdir(tmp_path).check_continues(EXPERIMENT, None, overwrite=False)


def test_temporary_files_that_a_kill_left_are_cleared(workdir):
    left, other = workdir.path / ".experiment.json.1234.tmp", workdir.path / ".mine.tmp"
    left.touch()
    other.touch()
    workdir.clear()
    assert other.exists() and not left.exists()


def test_differing_fields_are_listed_with_the_remedies(workdir):
    trained(workdir)
    other = Experiment("e", data=DIGITS, optim=Optim(momentum=0.5), train=Train(epochs=2, seed=4))
    with pytest.raises(UsageError) as refused:
        workdir.check_continues(other, None, overwrite=False)
    message = str(refused.value)
    for part in (
        str(workdir.path),
        "--optim.momentum: 0.9 recorded, 0.5",
        "--train.seed: 3 recorded, 4",
        "--workdir",
        "--overwrite",
    ):
        assert part in message
    workdir.check_continues(other, None, overwrite=True)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_longer_run_after_a_rate_of_zero_gets_a_command(tmp_path, schedule):
    def run(epochs):
        return Experiment("e", data=DIGITS, optim=Optim(schedule=schedule), train=Train(epochs=epochs))

    workdir = Workdir(tmp_path)
    workdir.write_record(RunRecord(run(2), DataIdentity("digits", "0"), Environment()))
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(UsageError) as refused:
        workdir.check_continues(run(5), None, overwrite=False)
    expected = f"--restore={tmp_path} --workdir={tmp_path}-longer --train.epochs=3"
    assert f"The schedule {schedule} ends at a rate of zero after 2 epochs" in str(refused.value)
    assert expected in str(refused.value)
    with pytest.raises(UsageError) as shorter:
        workdir.check_continues(run(1), None, overwrite=False)
    assert "rate of zero" not in str(shorter.value)


def test_other_settings_of_jax_are_reported(workdir, capsys):
    (workdir.path / "checkpoints" / "1").mkdir(parents=True)
    for before, now, warned in (({}, {}, False), (None, {"a": "1"}, False), ({}, {"a": "1"}, True), ({"a": "1"}, {}, True)):
        workdir.write_record(dataclasses.replace(RECORD, environment=Environment(settings=before)))
        workdir.check_same_conditions(RECORD.data, now)
        output = capsys.readouterr().out
        assert ("a=1" in output and "jax's default settings" in output) == warned == bool(output)


def test_run_started_from_other_parameters_is_another_run(workdir):
    trained(workdir)
    with pytest.raises(UsageError, match="--restore: None recorded, /elsewhere/39"):
        workdir.check_continues(EXPERIMENT, "/elsewhere/39", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_that_is_no_run_is_never_used(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="thesis.tex.*no run folder"):
        Workdir(tmp_path).check_continues(EXPERIMENT, None, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_kill_while_clearing_leaves_a_run_folder(workdir, monkeypatch):
    """The record is deleted last, because a folder without a record is rejected even with --overwrite."""
    trained(workdir)
    with pytest.raises(OSError, match="killed"), monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        workdir.clear()
    workdir.check_continues(EXPERIMENT, None, overwrite=True)


def test_clear_deletes_what_a_run_wrote_and_nothing_else(workdir, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "other").write_text("x")
    for name in ("checkpoints", "tensorboard", "features"):
        (workdir.path / name / "deep").mkdir(parents=True)
    (workdir.path / "figures").symlink_to(kept)
    for name in {*CONTENTS, "notes.txt"} - {"checkpoints", "tensorboard", "features", "figures"}:
        (workdir.path / name).write_text("{}")
    assert {path.name for path in workdir.path.iterdir()} >= set(CONTENTS)
    workdir.clear()
    assert {path.name for path in workdir.path.iterdir()} == {".lock", "notes.txt"}
    assert (kept / "other").exists()


@pytest.mark.parametrize("name", ["experiment.json", "result.json"])
@pytest.mark.parametrize("text", ["", '{"experiment": ', "[]", "\0\0"])
def test_damaged_file_is_named_with_a_remedy(workdir, name, text):
    (workdir.path / name).write_text(text)
    with pytest.raises(RunError, match=rf"{name} is damaged.*(--overwrite|Delete it)"):
        workdir.record(), workdir.result()


def test_file_is_written_whole_or_not_at_all(workdir):
    before = (workdir.path / "experiment.json").read_bytes()
    with pytest.raises(TypeError):
        workdir.write_record(dataclasses.replace(workdir.record(), restored_from=object()))
    assert (workdir.path / "experiment.json").read_bytes() == before


# --- whole commands --------------------------------------------------------------------------------------------------


def test_finished_run_prints_its_result_and_changes_nothing(learned, capsys):
    before = contents(learned)
    capsys.readouterr()
    assert train(learned, train__epochs=LEARNING_EPOCHS) == 0
    shown = capsys.readouterr().out
    assert "This run is finished" in shown
    assert f"top-1 {100 * result(learned)['top1_error']:.2f} %" in shown
    assert str(learned / "report.md") in shown
    assert contents(learned) == before


def test_other_options_in_a_used_folder_change_nothing(learned, capsys):
    before = contents(learned)
    assert train(learned, train__epochs=LEARNING_EPOCHS, train__seed=7) == 2
    assert "--train.seed: 0 recorded, 7 requested" in capsys.readouterr().err
    assert contents(learned) == before


def test_damaged_metrics_end_a_command_with_a_message(copied, capsys):
    file = copied / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2].replace(b'"kind"', b'"k', 1))
    (copied / "result.json").unlink()
    assert train(copied, train__epochs=LEARNING_EPOCHS) == 1
    message = capsys.readouterr().err
    assert str(file) in message and "Traceback" not in message and "--overwrite" in message


def _lost(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cut(path):
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGED = {"experiment.json": "--overwrite", "result.json": "Delete it", "statistics.npz": "delete it"}
"""{file whose damage ends commands: a remedy in the message}."""

MODES = [
    (),
    *(pytest.param((f"--mode={mode}",), marks=pytest.mark.evidence) for mode in ("eval", "report", "kernels", "predict")),
]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "".join(mode) or "train")
@pytest.mark.parametrize("damage", [_lost, _cut])
@pytest.mark.parametrize("name", [name for name in CONTENTS if name not in ("checkpoints", "features")])
def test_any_file_of_a_run_may_be_lost_or_cut(copied, name, damage, mode, capsys):
    damage(copied / name)
    status = main([*command(copied, train__epochs=LEARNING_EPOCHS), *mode])
    output = capsys.readouterr()
    if status:
        assert output.err.count("Error: ") == 1 and str(copied) in output.err and "Traceback" not in output.err
        assert damage is _lost or DAMAGED[name] in output.err
    else:
        paths = [word for word in output.out.split() if word.startswith(str(copied))]
        assert paths and all(Path(path.rstrip(".:")).exists() for path in paths)
    assert status == 0 or name in DAMAGED or (name, mode) == ("metrics.jsonl", ("--mode=report",))


def test_overwrite_starts_a_damaged_run_anew(copied, capsys):
    (copied / "experiment.json").write_text("{")
    capsys.readouterr()
    assert main([*command(copied, train__epochs=epochs(1)), "--overwrite"]) == 0
    assert "Training for 1 steps" in capsys.readouterr().out
    assert result(copied)["steps"] == 1


def test_overwrite_deletes_nothing_when_the_command_cannot_run(copied, capsys):
    before = contents(copied)
    assert main([*command(copied, train__batch=127, mesh__data=2), "--overwrite"]) == 2
    assert "127" in capsys.readouterr().err
    assert contents(copied) == before


def test_finished_run_without_its_result_is_finished_again(copied, learned):
    (copied / "result.json").unlink()
    shutil.rmtree(copied / "figures")
    assert train(copied, train__epochs=LEARNING_EPOCHS) == 0
    passing = {"seconds"}
    assert {k: v for k, v in result(copied).items() if k not in passing} == {
        k: v for k, v in result(learned).items() if k not in passing
    }
    assert (copied / "figures" / "learning_curves.png").exists()
    kinds = [json.loads(line)["kind"] for line in (copied / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("test") == 1


def test_other_data_under_a_run_is_refused(copied, capsys):
    record = json.loads((copied / "experiment.json").read_text())
    record["data"]["fingerprint"] = "0123"
    (copied / "experiment.json").write_text(json.dumps(record))
    (copied / "result.json").unlink()
    assert train(copied, train__epochs=LEARNING_EPOCHS) == 2
    message = capsys.readouterr().err
    assert "0123" in message and record["data"]["title"] in message
