"""Check `--mode=prepare` and streams with real worker processes, which must not outlive a kill."""

import os
import signal
import subprocess
import sys
import time

import photographs
import psutil
import pytest
import tfds_files
from photographs import SIDE, TEST, TRAIN, write_folder

import launch
from alexnet_jax.data import registry
from alexnet_jax.experiment import Data

own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)


def test_worker_processes_prepare_a_folder(tmp_path, capfd):
    root = write_folder(tmp_path / "data")
    arguments = ["--exp=alexnet_imagenet_debug", "--mode=prepare", f"--data.dir={root}", "--data.name=folder"]
    assert launch.main([*arguments, f"--data.side={SIDE}", "--data.crop=32", "--data.workers=2"]) == 0
    assert f"{TRAIN + TEST} pictures of 40x40" in capfd.readouterr().out
    assert "prepared at 40x40" in registry.load(Data("folder", dir=str(root), side=SIDE)).title


@pytest.mark.evidence
def test_killed_it_leaves_no_process_and_goes_on(tmp_path):
    """Kill the started process with SIGKILL as soon as its workers run."""
    root, small = write_folder(tmp_path / "data", train=400), tmp_path / "small"
    arguments = ["--exp=alexnet_imagenet_debug", "--mode=prepare", f"--data.dir={root}", "--data.name=folder"]
    arguments += [f"--data.side={SIDE}", "--data.crop=32", "--data.workers=2", f"--data.prepared={small}"]
    started = subprocess.Popen([sys.executable, "launch.py", *arguments], stdout=subprocess.DEVNULL)
    workers = []
    while len(workers) < 2 and started.poll() is None:
        workers = [
            child for child in psutil.Process(started.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    assert launch.main(arguments) == 0
    assert "prepared at 40x40" in registry.load(Data("folder", prepared=str(small), side=SIDE)).title


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files under /proc")
def test_more_record_files_than_a_process_may_open_by_default(tmp_path):
    """A limit of 64 with a higher hard limit represents the usual 1,024 for ImageNet's 1,088 files."""
    program = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "import numpy as np\n"
        "from alexnet_jax.data import loader\n"
        "from alexnet_jax.data.records import TfdsRecords\n"
        "from alexnet_jax.data.dataset import DiskSplit\n"
        f"files = tuple(f'{tmp_path}/{{i}}' for i in range(100))\n"
        "records = TfdsRecords(files, (1,) * 100, 'tfrecord')\n"
        "steps = loader.Evaluation(DiskSplit(records, 8, 3, np.arange(100), ''), 10, np.arange(10))\n"
        "print(sum(len(batch.labels) for batch in loader.batches(steps, 0)))"
    )
    for i in range(100):
        tfds_files.write_tfrecord(tmp_path / str(i), [tfds_files.example(photographs.photograph(i), i % 3)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "100\n", done.stderr
