"""`--mode=prepare` with its real worker processes."""

import photographs
import pytest
from photographs import SIDE, TEST, TRAIN, write_folder

import launch
from alexnet_jax.data import sources
from alexnet_jax.experiment import Data

own_cache = pytest.fixture(autouse=True)(photographs.own_cache.__wrapped__)


def test_worker_processes_prepare_a_folder(tmp_path, capfd):
    root = write_folder(tmp_path / "data")
    arguments = ["--exp=alexnet_imagenet_debug", "--mode=prepare", f"--data.dir={root}", "--data.name=folder"]
    assert launch.main([*arguments, f"--data.side={SIDE}", "--data.crop=32", "--data.workers=2"]) == 0
    assert f"{TRAIN + TEST} pictures of 40x40" in capfd.readouterr().out
    assert "prepared at 40x40" in sources.load(Data("folder", dir=str(root), side=SIDE)).title
