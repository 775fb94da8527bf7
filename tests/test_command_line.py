"""Check which commands are rejected as wrong usage, and with which messages."""

import re

import pytest
from commands import NAMES, status

pytest_plugins = ["commands"]
pytestmark = pytest.mark.usefixtures("empty_folder")


def test_missing_experiment(refused):
    message = refused("--train.epochs=1")
    assert "--exp=NAME is missing" in message and "--list" in message


def test_no_arguments(refused):
    assert "--exp=NAME is missing" in refused()


def test_misspelt_experiment_gets_the_nearest_name(refused):
    message = refused("--exp=alexnet_digit")
    assert "--exp=alexnet_digit:" in message and "Did you mean --exp=alexnet_digits?" in message


def test_unknown_experiment_gets_all_names(refused):
    message = refused("--exp=qqq")
    assert "--exp=qqq:" in message and all(name in message for name in NAMES)


def test_misspelt_option_gets_the_nearest_name(refused):
    message = refused("--exp=alexnet_digits", "--optim.momentm=0.9")
    assert "--optim.momentm" in message and re.search(r"--optim\.momentum\b", message)


def test_abbreviated_option_is_refused(refused):
    assert "--optim.learn" in refused("--exp=alexnet_digits", "--optim.learn=0.1")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("train.epochs", "abc", "float"),
        ("train.batch", "1.5", "int"),
        ("data.mirror", "perhaps", "True"),
        ("optim.drops", "soon", "FLOAT"),
        ("network.order", "papr", "paper"),
        ("network.columns", "3", "2"),
        ("data.name", "cifar", "cifar10"),
        ("mode", "trian", "train"),
    ],
)
def test_wrong_type_or_choice(refused, option, value, expected):
    message = refused("--exp=alexnet_digits", f"--{option}={value}")
    assert f"--{option}" in message and value in message and expected in message


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (
            "train",
            ("--image=a.png",),
            "--image=a.png: expected only with --mode=predict, neighbours, features, not train",
        ),
        ("kernels", ("--image", "a.png", "b.png"), "--image=a.png b.png: expected only with --mode=predict"),
        ("predict", ("--layer=fc6",), "--layer=fc6: expected only with --mode=neighbours, features, not predict"),
        ("neighbours", ("--split=train",), "--split=train: expected only with --mode=features, not neighbours"),
        ("gradcheck", ("--out=here",), "--out=here: expected only with --mode=kernels, predict, neighbours, features"),
        ("features", ("--split=train", "--image=a.png"), "--split=train: expected without --image"),
        ("features", ("--split=tests",), "--split=tests: expected one of train, validation, test"),
        ("predict", ("--image=nowhere.png",), "--image=nowhere.png: no such file or folder"),
        ("predict", ("--image=.",), "--image=.: no pictures in this folder"),
    ],
)
def test_options_that_a_mode_does_not_read(refused, mode, options, message):
    assert message in refused("--exp=alexnet_digits", f"--mode={mode}", *options)


@pytest.mark.parametrize("mode", ["kernels", "predict", "neighbours", "features"])
def test_looking_into_a_network_before_training(refused, mode):
    assert "Train first" in refused("--exp=alexnet_digits", f"--mode={mode}")


@pytest.mark.parametrize("restore", ["latest", "best", "39"])
def test_training_does_not_start_from_a_step_of_its_own(refused, restore):
    message = refused("--exp=alexnet_digits", f"--restore={restore}")
    assert f"--restore={restore}" in message and "--mode=eval" in message


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_restore_from_nowhere(refused, mode):
    message = refused("--exp=alexnet_digits", f"--mode={mode}", "--restore=no/such/run")
    assert "no/such/run" in message


def test_evaluation_before_training(refused):
    message = refused("--exp=alexnet_digits", "--mode=eval")
    assert "runs/alexnet_digits" in message and "Train first" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--processes=0",), "--processes=0: expected 1 or more"),
        (("--processes=2", "--mode=summary"), "--processes=2: expected only with --mode=train, eval, not summary"),
        (("--processes=2", "--dry_run"), "--dry_run is work for one process"),
        (
            ("--processes=2", "--distributed=off"),
            "--processes=2 starts processes on this machine, but --distributed=off",
        ),
        (("--processes=2", "--distributed=a:1,2,0"), "but this is one of several already"),
        (("--distributed=on",), "--distributed=on: expected auto, off or HOST:PORT,N,I"),
        (("--distributed=a:1,2,0", "--mode=predict"), "--mode=predict is work for one process"),
    ],
)
def test_processes_that_cannot_be(refused, options, message):
    assert message in refused("--exp=alexnet_digits", *options)


def test_a_cluster_in_which_a_mode_is_work_for_one(refused, monkeypatch):
    for name in ("JOB_ID", "STEP_NODELIST", "PROCID", "LOCALID"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    message = refused("--exp=alexnet_digits", "--mode=summary")
    assert "--mode=summary is work for one process" in message and "--distributed=off" in message
    assert status("--exp=alexnet_digits", "--mode=summary", "--distributed=off") == 0
    assert status("--exp=pooling_sweep", "--mode=summary") == 0  # a sweep's processes share its trials


def test_a_mode_that_lacks_its_option_name_is_refused(refused):
    assert "expected --mode=predict" in refused("--exp=alexnet_digits", "predict")
    assert status("--exp=alexnet_digits", "--mode", "summary") == 0


def test_imagenet_that_is_not_there(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    message = refused("--exp=alexnet_imagenet")
    assert f"ImageNet is not prepared in {tmp_path}" in message and "--data.name=folder" in message
