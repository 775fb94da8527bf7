"""The command line: what it shows, what it refuses and how, and the summaries; nothing here trains."""

import importlib
import re
import subprocess
import sys

import pytest
from running import ROOT

import experiments
import launch
from alexnet_jax import assembly, training
from alexnet_jax.checks import check
from alexnet_jax.data import registry
from alexnet_jax.data.registry import class_count
from alexnet_jax.errors import DataNotFoundError, UsageError
from alexnet_jax.experiment import DIGITS
from alexnet_jax.network import networks
from alexnet_jax.sweeps.plan import Sweep

NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("[!_]*.py"))

SWEEPS = {name for name in NAMES if isinstance(experiments.find(name), Sweep)}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Each command runs in an empty folder, and leaves the memory of this process as it is."""
    monkeypatch.setattr(launch, "keep_memory", lambda: False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(*arguments):
    try:
        return launch.main(list(arguments))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def refused(capsys, empty_folder):
    """A function that runs a command, holds that it is refused as wrong usage, and returns what the user reads."""

    def run(*arguments):
        assert status(*arguments) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert not list(empty_folder.iterdir())
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", message).split())

    return run


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_list_shows_every_experiment_with_a_line(capsys):
    assert status("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 3 for line in lines)


def test_help_shows_the_defaults_of_the_experiment(capsys):
    assert status("--exp=alexnet_digits", "--help") == 0
    shown = capsys.readouterr().out
    for option in (
        "--mode",
        "--workdir",
        "--restore",
        "--overwrite",
        "--network.width",
        "--optim.learning_rate",
        "--mesh.column",
    ):
        assert option in shown
    assert "default: 0.125" in shown


@pytest.mark.parametrize("name", NAMES)
def test_experiment_or_sweep_is_complete(name):
    module = importlib.import_module(f"experiments.{name}")
    headline = module.__doc__.splitlines()[0]
    assert headline == headline.strip() and headline.endswith(".")
    found = experiments.find(name)
    assert found.name == name and f"python launch.py --exp={name}" in module.__doc__
    if name in SWEEPS:
        return
    check(found)
    table = networks.build(found.network, class_count(found.data))
    assert table.classes == class_count(found.data)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SWEEPS))
def test_summary_shows_parameters_and_what_crosses(name, capsys):
    assert status(f"--exp={name}", "--mode=summary") == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    network = experiments.experiment(name).network
    for spec in networks.build(network, 10).layers:
        crosses = network.columns == 2 and spec.name in ("conv3", "fc6", "fc7", "fc8")
        borders = name == "caffe_alexnet" and spec.name in ("conv1", "conv2")
        assert rows[spec.name].endswith(" -") != (crosses or borders)
        assert rows[spec.name].endswith("for LRN") == borders
    assert re.search(r"\d{3}", rows["total"])


def test_summary_of_the_papers_network(capsys):
    options = ("--network.name=alexnet", "--network.width=1", "--network.fc_units=4096", "--data.name=imagenet2012")
    assert status("--exp=alexnet_cifar", *options, "--mode=summary") == 0
    shown = capsys.readouterr().out
    assert "60,965,224" in shown
    assert "128 maps of 13x13" in shown  # conv3: the other column's, of 27x27 pooled to 13x13
    assert "partial sums of 1,000 units" in shown


@pytest.mark.skipif("alexnet_imagenet" not in NAMES, reason="no such experiment yet")
def test_summary_of_alexnet_imagenet(capsys):
    assert status("--exp=alexnet_imagenet", "--mode=summary") == 0
    assert "60,965,224" in capsys.readouterr().out


def test_summary_starts_no_device_and_writes_nothing(empty_folder):
    program = (
        "import sys, launch\n"
        "assert not {'jax', 'numpy'} & set(sys.modules)\n"  # the allocator is set before either is there
        f"for name in {NAMES}:\n"
        "    assert launch.main([f'--exp={name}', '--mode=summary']) == 0\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert not list(empty_folder.iterdir())


# --- what it refuses -------------------------------------------------------------------------------------------------


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


OUT_OF_RANGE = [
    ("network.width", "0", "positive"),
    ("network.width", "inf", "positive"),
    ("network.width", "nan", "positive"),
    ("network.fc_units", "0", "positive multiple of network.columns"),
    ("network.fc_units", "33", "positive multiple of network.columns"),
    ("network.dropout", "1", "below 1"),
    ("network.dropout", "-0.1", "at least 0"),
    ("data.validation", "0", "at least 1"),
    ("data.crop_padding", "-1", "0 or more"),
    ("optim.learning_rate", "0", "positive"),
    ("optim.learning_rate", "inf", "positive"),
    ("optim.bias_learning_rate", "-1", "positive"),
    ("optim.momentum", "1", "below 1"),
    ("optim.momentum", "-0.5", "at least 0"),
    ("optim.weight_decay", "-0.1", "0 or more"),
    ("optim.weight_decay", "nan", "0 or more"),
    ("optim.warmup", "-1", "at least 0"),
    ("optim.warmup", "1000", "below train.epochs"),
    ("optim.drop_factor", "0", "above 0"),
    ("optim.drop_factor", "1.5", "at most 1"),
    ("train.epochs", "0", "positive"),
    ("train.epochs", "-1", "positive"),
    ("train.epochs", "nan", "positive"),
    ("train.epochs", "inf", "positive"),
    ("train.batch", "0", "1 or more"),
    ("train.eval_batch", "0", "1 or more"),
    ("train.log_every", "0", "1 or more"),
    ("train.keep", "0", "1 or more"),
    ("train.save_every", "-1", "0 or more"),
    ("train.seed", "-1", "0 or more"),
    ("train.seed", str(2**32), "below 2**32"),
    ("mesh.data", "0", "1 or more"),
    ("mesh.column", "0", "1 or more"),
    ("mesh.column", "3", "divisor of network.columns=2"),
]


@pytest.mark.parametrize(("option", "value", "expected"), OUT_OF_RANGE, ids=lambda text: text)
def test_value_out_of_range(refused, option, value, expected):
    message = refused("--exp=alexnet_digits", f"--{option}={value}")
    assert re.search(rf"^Error: --{option}={value}(\.0)?: expected ", message) and expected in message


@pytest.mark.parametrize("options", [("3", "2"), ("0", "2"), ("-1",)], ids=" ".join)
def test_drops_must_rise(refused, options):
    message = refused("--exp=alexnet_digits", "--optim.schedule=drops", "--optim.drops", *options)
    assert "--optim.drops=(" in message and "rising epochs above 0" in message


def test_drops_need_their_schedule(refused):
    message = refused("--exp=alexnet_digits", "--optim.schedule=linear", "--optim.drops", "3")
    assert "--optim.drops=(3.0,)" in message and "optim.schedule=linear" in message


def test_one_column_network_in_two_columns(refused):
    message = refused("--exp=lenet5_cifar", "--network.columns=2")
    assert "--network.columns=2: expected 1 for lenet5" in message


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
        ("features", ("--split=tests",), "invalid choice 'tests'"),
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


# --- without CIFAR-10 ------------------------------------------------------------------------------------------------


@pytest.fixture
def without_cifar(monkeypatch):
    """CIFAR-10 is nowhere; what would be trained instead is noted, not trained."""
    trained, load = [], registry.load

    def only_digits(data, **options):
        if data.name == "cifar10":
            raise DataNotFoundError("CIFAR-10 is nowhere.")
        return load(data, **options)

    monkeypatch.setattr(registry, "load", only_digits)
    monkeypatch.setattr(training, "begin", lambda run, lock: trained.append(run.request))  # None: nothing is trained
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return trained


def test_plain_first_training_falls_back_to_the_digits(without_cifar, empty_folder, capsys):
    assert status("--exp=alexnet_cifar") == 0
    (request,) = without_cifar
    assert request.experiment.name == "alexnet_cifar-on-digits"
    assert request.experiment.data == DIGITS
    assert request.workdir.absolute() == empty_folder / "runs" / "alexnet_cifar-on-digits"
    shown = capsys.readouterr().out
    assert "CIFAR-10 is nowhere." in shown and "digits" in shown
    assert not (empty_folder / "runs" / "alexnet_cifar").exists()


def test_a_chosen_folder_stays_chosen_in_the_fallback(without_cifar, empty_folder):
    assert status("--exp=alexnet_cifar", "--workdir=mine") == 0
    assert without_cifar[0].workdir.absolute() == empty_folder / "mine"


@pytest.mark.parametrize("options", [("--data.fallback=error",), ("--data.dir=.",), ("--restore=.",)], ids=" ".join)
def test_no_fallback_from_what_was_asked_for(without_cifar, monkeypatch, options, capsys):
    monkeypatch.setattr(training, "find_step", lambda restore, folder: folder, raising=False)
    assert status("--exp=alexnet_cifar", *options) == 2
    assert "CIFAR-10 is nowhere." in capsys.readouterr().err
    assert not without_cifar


def test_no_fallback_from_a_named_data_folder(without_cifar, monkeypatch, refused):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    assert "CIFAR-10 is nowhere." in refused("--exp=alexnet_cifar")
    assert not without_cifar


def test_no_fallback_in_evaluation(without_cifar, monkeypatch, refused, tmp_path):
    monkeypatch.setattr(assembly, "find_step", lambda restore, folder: folder, raising=False)
    assert "CIFAR-10 is nowhere." in refused("--exp=alexnet_cifar", "--mode=eval")


def test_imagenet_that_is_not_there(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    message = refused("--exp=alexnet_imagenet")
    assert f"ImageNet is not prepared in {tmp_path}" in message and "--data.name=folder" in message


def test_find_raises_before_anything_is_imported():
    with pytest.raises(UsageError, match="no such experiment"):
        experiments.find("alexnet cifar")
    assert not hasattr(experiments, "alexnet cifar")


# --- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SWEEPS))
def test_summary_of_a_sweep_shows_its_question_and_arms(name, capsys):
    assert status(f"--exp={name}", "--mode=summary") == 0
    shown = capsys.readouterr().out
    assert experiments.find(name).question in shown
    for arm in experiments.find(name).arms:
        assert arm.name in shown and arm.reason in shown and arm.published in shown
    assert "cannot be built" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sweep.seeds=0",), "--sweep.seeds=0: expected 1 or more"),
        (("--sweep.arms=wide",), "no arm 'wide'. Expected non_overlapping"),
        (("--sweep.epochs=-1",), "--train.epochs=-1"),
        (("--sweep.epochs=0.1",), "--optim.warmup=0.5: expected at least 0 and below train.epochs=0.1"),
        (("--sweep.base=alexnet_cifer",), "Did you mean --exp=alexnet_cifar?"),
        (("--sweep.base=lrn_sweep",), "lrn_sweep is a sweep; expected an experiment, such as alexnet_cifar"),
        (("--sweep.engine=slurm",), "invalid choice 'slurm'"),
        (("--sweep.address=auto",), "expected only with --sweep.engine=ray"),
        (("--mode=eval",), "--mode=eval is not for sweeps"),
        (("--restore=best",), "a sweep's trials are runs of their own"),
        (("--mode=predict",), "--mode=predict is not for sweeps"),
        (("--out=here",), "--out=here: expected only with --mode=kernels"),
        (("--processes=2",), "--processes and --distributed are for experiments"),
        (("--distributed=a:1,2,0",), "--processes and --distributed are for experiments"),
        (("--train.batch=100", "--mesh.data=3"), "--train.batch=100"),
    ],
)
def test_a_sweep_that_cannot_be(refused, options, message):
    assert message in refused("--exp=pooling_sweep", *options)


def test_a_mode_that_stands_alone_is_told(refused):
    assert "expected --mode=predict" in refused("--exp=alexnet_digits", "predict")
    assert status("--exp=alexnet_digits", "--mode", "summary") == 0


def test_options_of_a_sweep_are_none_of_an_experiment(refused):
    assert "is for sweeps; alexnet_digits is one experiment" in refused("--exp=alexnet_digits", "--sweep.seeds=2")


def test_on_the_digits_a_sweep_starts_from_the_narrow_network(capsys):
    assert status("--exp=augmentation_sweep", "--data.name=digits", "--dry_run", "--sweep.seeds=1") == 0
    shown = capsys.readouterr().out
    assert "crops_only" in shown and "changes nothing: alexnet_digits has these values already" in " ".join(shown.split())
    assert "6 trials" in shown


def test_a_sweep_without_its_data_does_not_go_on_with_other_data(refused, monkeypatch, empty_folder):
    monkeypatch.setattr(registry, "load", lambda data: (_ for _ in ()).throw(DataNotFoundError("No CIFAR-10 here.")))
    assert "No CIFAR-10 here. To see the sweep at work on the digits" in refused("--exp=pooling_sweep")
