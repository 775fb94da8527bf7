"""Check how the processes of a run start and end, and that they compute the same as one process.

The short tests start processes that do not train (endings.py). The tests that train use a narrow network, and all but
one of them belong to the long tier.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import endings
import photographs
import psutil
import pytest
from running import ROOT, STEPS_PER_EPOCH, command, epochs, main, numbers, result, start, state, train, wait_for

from alexnet_jax.processes import start as processes
from alexnet_jax.processes.identity import ProcessIdentity
from alexnet_jax.processes.outcome import INTERRUPTED
from alexnet_jax.run.workdir import Workdir

pytest_plugins = ["running"]


def losses(run, kind="train"):
    return [line["loss"] for line in numbers(run, kind)]


def errors(said):
    return sum(line.startswith("Error: ") for line in said.splitlines())


# --- start and end of processes --------------------------------------------------------------------------------------


def test_each_process_has_an_identity_and_a_group(tmp_path):
    assert processes.start(endings.writes_its_identity, [str(tmp_path)], 2, 3).status == 0
    written = [(tmp_path / str(index)).read_text() for index in (0, 1)]
    address = written[0].split("'")[1]
    assert address.startswith("127.0.0.1:")
    assert written == [f"{ProcessIdentity(i, 2, address, tuple(range(3 * i, 3 * i + 3)))} True" for i in (0, 1)]


@pytest.mark.parametrize(
    ("ending", "status", "message"),
    [
        (endings.second_is_killed, 1, "Process 1 of 2 was ended by SIGKILL, so the other processes were ended too."),
        (endings.second_is_killed_after_first_fails, 1, "Process 1 of 2 was ended by SIGKILL"),
        (endings.first_is_wrong, 2, "Error: one thing is wrong."),
        (endings.second_is_wrong_after_first_is_lost, 2, "Error: one thing is wrong."),
        (endings.second_has_a_defect, 1, "KeyError: 'a defect'"),
    ],
)
def test_one_failure_ends_all_processes_with_one_message(tmp_path, ending, status, message):
    outcome = processes.start(ending, [str(tmp_path)], 2, 1)
    assert outcome.status == status and message in outcome.message
    assert not started_by(psutil.Process())


@pytest.mark.parametrize(
    ("ending", "number", "status", "message"),
    [
        ("saves_after_a_signal", signal.SIGTERM, 143, "Interrupted by 15, saved."),
        ("ignores_no_signal", signal.SIGTERM, 143, INTERRUPTED),
        ("ignores_no_signal", signal.SIGKILL, -9, ""),
    ],
)
def test_a_signal_to_the_starter_ends_all_processes(tmp_path, ending, number, status, message):
    log = tmp_path / "log"
    program = [sys.executable, "tests/endings.py", ending, str(tmp_path)]
    with log.open("w") as output:
        parent = subprocess.Popen(program, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output)
    wait_for(lambda: all((tmp_path / index).exists() for index in "01"), parent, log)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(number)
    assert parent.wait(timeout=60) == status
    assert log.read_text().strip() == message
    assert not psutil.wait_procs(children, timeout=30)[1]


# --- equality of one and two processes -------------------------------------------------------------------------------


def launched(arguments, cache, log):
    """Start launch.py, which creates the devices of each of its processes."""
    return start(arguments, cache, log, devices=1)


def train_in_two(run, cache, **options):
    """Return the exit status and the output of a training in two processes."""
    log = run.with_name("log")
    process = launched(command(run, processes=2, **options), cache, log)
    return process.wait(timeout=600), log.read_text()


def test_two_processes_compute_the_losses_of_one(twenty_steps, tmp_path, compile_cache):
    run = tmp_path / "run"
    status, said = train_in_two(run, compile_cache, mesh__column=2, train__epochs=epochs(5))
    assert status == 0, said
    assert losses(run) == pytest.approx(losses(twenty_steps)[:5], abs=1e-5)
    for line in ("mesh data 1, column 2", "validation at", "Test error: top-1"):
        assert said.count(line) == 1
    assert "Gloo" not in said and "Error" not in said
    assert result(run)["examples"] == 360
    assert train(run, train__epochs=epochs(7)) == 0  # here, in one process on one device
    assert losses(run) == pytest.approx(losses(twenty_steps)[:7], abs=1e-4)


MESHES = [(1, 2), (2, 1), (2, 2)]


@pytest.fixture(scope="module", params=MESHES, ids=lambda mesh: "x".join(map(str, mesh)))
def ten_steps(request, tmp_path_factory, compile_cache):
    """Return (run, mesh options) of ten steps in two processes with one or two devices each."""
    data, column = request.param
    options = {"mesh__data": data, "mesh__column": column}
    run = tmp_path_factory.mktemp("two_processes") / "run"
    status, said = train_in_two(run, compile_cache, train__epochs=epochs(10), **options)
    assert status == 0, said
    return run, options


@pytest.mark.evidence
def test_every_mesh_gives_the_losses_of_one_process(ten_steps, twenty_steps):
    run, _ = ten_steps
    assert losses(run)[:5] == pytest.approx(losses(twenty_steps)[:5], abs=1e-5)
    assert [line["step"] for line in numbers(run)] == list(range(1, 11))


@pytest.mark.evidence
def test_checkpoints_move_between_two_processes_and_one(ten_steps, twenty_steps, tmp_path, compile_cache):
    made, options = ten_steps
    run = shutil.copytree(made, tmp_path / "run")
    assert train(run, train__epochs=epochs(13)) == 0
    status, said = train_in_two(run, compile_cache, train__epochs=epochs(16), **options)
    assert status == 0 and "Continuing at step 13" in said, said
    assert [line["step"] for line in numbers(run)] == list(range(1, 17))
    # Single steps agree to 1e-5; later losses differ more, because sums have another order.
    assert losses(run) == pytest.approx(losses(twenty_steps)[:16], abs=2e-2)


@pytest.mark.evidence
def test_an_evaluation_is_the_same_in_two_processes(ten_steps, tmp_path, compile_cache, capsys):
    run, options = ten_steps
    capsys.readouterr()
    assert main(command(run, mode="eval")) == 0
    expected = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Test error"))
    status, said = train_in_two(run, compile_cache, mode="eval", **options)
    assert status == 0 and said.count(expected) == 1, said


@pytest.mark.evidence
@pytest.mark.parametrize("mesh", [(1, 2), (2, 1)], ids=["1x2", "2x1"])
def test_a_training_on_files_is_the_same_in_two_processes(mesh, tmp_path, monkeypatch, compile_cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, log = photographs.write_folder(tmp_path / "animals"), tmp_path / "log"
    options = photographs.OPTIONS | {"data.dir": root, "train.epochs": 2}
    assert train(tmp_path / "one", **options) == 0
    shared = {"processes": 2, "mesh.data": mesh[0], "mesh.column": mesh[1]}
    process = launched(command(tmp_path / "two", **options | shared), compile_cache, log)
    assert process.wait(timeout=600) == 0, log.read_text()
    for kind in ("train", "validation", "test"):
        assert losses(tmp_path / "two", kind) == pytest.approx(losses(tmp_path / "one", kind), abs=1e-4)
    assert result(tmp_path / "two")["examples"] == 9
    picture = root / "train" / "eel" / "002.jpg"  # with its size and age unchanged, the mean is not measured again
    about = picture.stat()
    picture.write_bytes(bytes(about.st_size))
    os.utime(picture, ns=(about.st_atime_ns, about.st_mtime_ns))
    process = launched(command(tmp_path / "broken", **options | shared), compile_cache, log)
    assert process.wait(timeout=600) == 1
    assert "eel/002.jpg cannot be read as a picture" in log.read_text() and errors(log.read_text()) == 1


@pytest.mark.evidence
def test_a_loss_that_is_not_finite_is_reported_once(tmp_path, compile_cache):
    status, said = train_in_two(
        tmp_path / "run", compile_cache, mesh__data=2, optim__learning_rate=1e30, train__epochs=epochs(9)
    )
    assert status == 1 and errors(said) == 1
    assert "Error: The loss of step" in said


@pytest.mark.evidence
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_resumes_after_a_process_was_killed(victim, twenty_steps, tmp_path, compile_cache):
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = command(run, processes=2, mesh__column=2, train__epochs=6, train__save_every=10)
    process, members = started(arguments, compile_cache, log, run, steps=15)
    wait_for((run / "checkpoints" / "10").is_dir, process, log)  # it is written during the training
    before = time.monotonic()
    members[victim].kill()
    assert process.wait(timeout=60) == 1
    assert time.monotonic() - before < 30
    assert errors(log.read_text()) == 1
    assert f"Process {victim} of 2 was ended by SIGKILL, so the other processes were ended too." in log.read_text()
    assert not psutil.wait_procs(members, timeout=10)[1]
    assert launched(arguments, compile_cache, tmp_path / "again").wait(timeout=600) == 0
    assert re.search(r"Continuing at step [1-9]", (tmp_path / "again").read_text())
    assert [line["step"] for line in numbers(run)] == list(range(1, 6 * STEPS_PER_EPOCH + 1))


@pytest.mark.evidence
@pytest.mark.parametrize("whom", ["all", "one"])
def test_a_signal_to_all_or_one_saves_at_the_same_step(whom, tmp_path, compile_cache):
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = command(run, processes=2, mesh__data=2, train__epochs=60)
    process, members = started(arguments, compile_cache, log, run, steps=15)
    (process if whom == "all" else members[1]).send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    saved = numbers(run)[-1]["step"]
    assert f"Interrupted by SIGTERM and saved at step {saved}." in log.read_text()
    assert "--processes=2 --train.epochs=60\n" in log.read_text()
    parameters, _ = state(run, saved)
    assert set(parameters) >= {"conv1", "fc8"}


@pytest.mark.evidence
def test_no_process_outlives_the_starter(tmp_path, compile_cache):
    run = tmp_path / "run"
    arguments = command(run, processes=2, mesh__column=2, train__epochs=60)
    process, members = started(arguments, compile_cache, tmp_path / "log", run, steps=3)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(members, timeout=20)[1]


@pytest.mark.evidence
def test_a_process_may_start_45_seconds_late(tmp_path, compile_cache):
    run, log = tmp_path / "run", tmp_path / "log"
    process = launched(command(run, processes=2, mesh__data=2, train__epochs=epochs(3)), compile_cache, log)
    wait_for(lambda: "Training for" in log.read_text(), process, log)
    other = members_of(process)[1]
    other.suspend()  # simulates a slow compilation; gloo waits 30 s for the first exchange of a new group
    time.sleep(45)
    other.resume()
    assert process.wait(timeout=300) == 0, log.read_text()
    assert len(numbers(run)) == 3


@pytest.mark.evidence
def test_a_folder_in_use_is_reported_once(tmp_path, compile_cache):
    run, log = tmp_path / "run", tmp_path / "log"
    with Workdir(run).locked():
        process = launched(command(run, processes=2, mesh__column=2), compile_cache, log)
        assert process.wait(timeout=300) == 2
    assert errors(log.read_text()) == 1
    assert f"Error: Another process is working in {run}." in log.read_text()


@pytest.mark.evidence
def test_a_mesh_that_leaves_out_devices_is_refused(tmp_path, compile_cache):
    status, said = train_in_two(tmp_path / "run", compile_cache)  # the narrow mesh has one device
    assert status == 2
    assert "--mesh.data=1 --mesh.column=1 has 1 of the 2 devices of 2 processes; expected all." in said


@pytest.mark.evidence
@pytest.mark.parametrize(
    ("other", "what"),
    [([], None), (["--train.seed=1"], "options"), (["--workdir=elsewhere"], "folder")],
    ids=["the same", "another seed", "another folder"],
)
def test_processes_started_by_hand_need_the_same_command(other, what, tmp_path, compile_cache):
    run, address = tmp_path / "run", f"127.0.0.1:{processes.free_port()}"
    arguments = {"mesh__data": 2, "train__epochs": epochs(2)}
    logs = [tmp_path / f"log-{index}" for index in (0, 1)]
    commands = [
        command(run, distributed=f"{address},2,0", **arguments),
        [*command(run, distributed=f"{address},2,1", **arguments), *other],
    ]
    both = [launched(line, compile_cache, log) for line, log in zip(commands, logs, strict=True)]
    statuses, said = [process.wait(timeout=300) for process in both], [log.read_text() for log in logs]
    if what is None:
        assert statuses == [0, 0]
        assert said[0].count("Test error") == 1 and "Test error" not in said[1] and "step 2/2" not in said[1]
    else:
        assert statuses == [2, 2]
        assert all(f"Process 1 was started with other {what} than process 0." in text for text in said)
        assert not (run / "experiment.json").exists()


@pytest.mark.evidence
@pytest.mark.parametrize("overwriting", [0, 1])
def test_the_leader_alone_decides_on_overwrite(overwriting, tmp_path, compile_cache):
    """Otherwise, a process that restores would wait forever for one that does not."""
    run, address = tmp_path / "run", f"127.0.0.1:{processes.free_port()}"
    assert train_in_two(run, compile_cache, mesh__data=2, train__epochs=epochs(2))[0] == 0
    (run / "result.json").unlink()
    lines = [command(run, distributed=f"{address},2,{i}", mesh__data=2, train__epochs=epochs(2)) for i in (0, 1)]
    lines[overwriting].append("--overwrite")
    logs = [tmp_path / f"log-{index}" for index in (0, 1)]
    both = [launched(line, compile_cache, log) for line, log in zip(lines, logs, strict=True)]
    assert [process.wait(timeout=300) for process in both] == [0, 0], [log.read_text() for log in logs]
    assert (run / "result.json").exists() and ("Continuing" in logs[0].read_text()) == bool(overwriting)


def started(arguments, cache, log, run, steps):
    """Start a training in two processes and wait for its step `steps`; return it and its processes, process 0 first."""
    process = launched(arguments, cache, log)
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(numbers(run)) >= steps, process, log)
    return process, members_of(process)


def members_of(process):
    """Return the two processes that a training started, process 0 first."""
    found = started_by(psutil.Process(process.pid))
    assert len(found) == 2
    return sorted(found, key=lambda child: child.pid)


def started_by(process):
    """Return the processes of a run that a process started."""
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]
