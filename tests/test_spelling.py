"""Check spellings of the command line: suggestions for unknown options, lists, booleans, and warm-ups that do not fit."""

import dataclasses

import pytest

import experiments
from alexnet_jax.command_line import read
from alexnet_jax.command_line.options import OPTIONS
from alexnet_jax.command_line.spelling import normalized
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Experiment, flatten
from alexnet_jax.suggestions import OF_OTHER_PROGRAMS, nearest
from alexnet_jax.sweeps.plan import Arm, Sweep

pytest_plugins = ["commands"]
pytestmark = pytest.mark.usefixtures("empty_folder")


def request(*arguments, exp="alexnet_digits"):
    return read([f"--exp={exp}", *arguments])[1]


# --- options that do not exist ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lr", "optim.learning_rate"),
        ("optim.lr", "optim.learning_rate"),
        ("learning_rate", "optim.learning_rate"),
        ("learning-rate", "optim.learning_rate"),
        ("epochs", "train.epochs"),
        ("seed", "train.seed"),
        ("train.batch_size", "train.batch"),
        ("batch-size", "train.batch"),
        ("optim.momentm", "optim.momentum"),
        ("network.poling", "network.pooling"),
        ("workdr", "workdir"),
        ("dataset", "data.name"),
        ("resume", "workdir"),
        ("num_workers", "data.workers"),
        ("train.dropout", "network.dropout"),
    ],
)
def test_an_unknown_option_gets_a_suggestion(written, meant, refused):
    message = refused("--exp=alexnet_digits", f"--{written}=7")
    assert f"--{written}=7: no such option. Did you mean --{meant}" in message


def test_an_option_unlike_all_others_points_to_the_help(refused):
    assert "--qqqqqq: no such option. --help lists all options." in refused("--exp=alexnet_digits", "--qqqqqq")


def test_names_of_other_programs_lead_to_options():
    assert set(OF_OTHER_PROGRAMS.values()) <= set(OPTIONS) and not set(OF_OTHER_PROGRAMS) & set(OPTIONS)


def test_every_option_is_known_by_its_name():
    assert set(flatten(Experiment("x"))) < set(OPTIONS)
    assert {"exp", "mode", "image", "weights", "traffic.link", "sweep.seeds", "restore_skip", "dry_run"} < set(OPTIONS)
    assert not any("." not in name and name in ("network", "look", "exchange") for name in OPTIONS)


def test_the_nearest_names_come_in_order():
    known = ["train.epochs", "sweep.epochs", "train.seed"]
    assert nearest("epochs", known) == ["train.epochs", "sweep.epochs"]
    assert nearest("epoch", known)[0] == "train.epochs" and nearest("zzz", known) == []


@pytest.mark.parametrize(("word", "option"), [("eval", "--mode=eval"), ("alexnet_cifar", "--exp=alexnet_cifar")])
def test_a_word_without_its_option(word, option, refused):
    assert f"{word!r} stands alone: expected {option}." in refused("--exp=alexnet_digits", word)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("mode=pretict", "--mode=pretict: expected one of train, eval, "),
        ("mode=pretict", "Did you mean --mode=predict?"),
        ("network.pooling=overlaping", "Did you mean --network.pooling=overlapping?"),
        ("network.columns=3", "--network.columns=3: expected one of 1, 2."),
        ("split=non", "--split=non: expected one of train, validation, test, None."),
    ],
)
def test_a_misspelt_value_gets_a_suggestion(written, message, refused):
    assert message in refused("--exp=alexnet_digits", f"--{written}")


# --- lists and booleans ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drops", [("--optim.drops=5,8",), ("--optim.drops", "5", "8"), ("--optim.drops", "5,", "8")])
def test_lists_of_numbers(drops):
    found = request("--optim.schedule=drops", "--optim.warmup=0", *drops)
    assert found.experiment.optim.drops == (5.0, 8.0)


@pytest.mark.parametrize("arms", [("=a,b",), ("", "a", "b"), ("", "a,", "b"), ("=a b",)])
@pytest.mark.parametrize("option", ["sweep.arms", "restore_skip"])
def test_lists_of_names(option, arms):
    first, *rest = arms
    assert normalized([f"--{option}{first}", *rest, "--mode=eval"]) == [f"--{option}=a,b", "--mode=eval"]


def test_lists_of_files(tmp_path):
    (tmp_path / "a,b.png").write_bytes(b"")
    expected = ["--image", "a,b.png", "c.png", "d.png"]
    assert normalized(["--image", "a,b.png", "c.png,d.png"]) == expected


@pytest.mark.parametrize(("word", "value"), [("no", False), ("False", False), ("OFF", False), ("yes", True), ("on", True)])
def test_yes_and_no(word, value):
    for option in (f"--data.mirror={word}", f"--data.mirror {word}"):
        assert request(*option.split()).experiment.data.mirror is value


def test_flags_with_a_value(refused):
    assert request("--overwrite=yes").overwrite and not request("--overwrite=no").overwrite
    assert "--overwrite=perhaps: expected no value" in refused("--exp=alexnet_digits", "--overwrite=perhaps")


def test_paths_that_are_long_or_begin_with_a_dash():
    names = [f"p{number:05d}.png" for number in range(40)]
    assert normalized([f"--image={','.join(names)}"]) == ["--image", *names]
    assert normalized(["--image=-a.png"]) == ["--image", "./-a.png"]


def test_hyphens_and_spaces_in_place_of_underscores_and_equals():
    assert request("--optim.learning-rate", "0.5").experiment.optim.learning_rate == 0.5


# --- a warm-up that does not fit -------------------------------------------------------------------------------------


def test_a_shipped_warmup_shrinks_with_the_training():
    shipped = experiments.experiment("alexnet_digits")
    found = request("--train.epochs=1")
    expected = shipped.optim.warmup / shipped.train.epochs
    assert found.experiment.optim.warmup == expected
    assert found.notes == (
        f"The warm-up is shortened from {shipped.optim.warmup:g} to {expected:g} epochs, in proportion to 1 epochs instead "
        f"of {shipped.train.epochs:g} (--optim.warmup).",
    )
    assert request("--train.epochs=3").experiment.optim.warmup == shipped.optim.warmup


def test_a_warmup_that_was_given_is_an_error(refused):
    message = refused("--exp=alexnet_digits", "--train.epochs=1", "--optim.warmup=2")
    assert "--optim.warmup=2.0: expected at least 0 and below train.epochs=1" in message


@pytest.mark.parametrize("option", ["--train.epochs=0.5", "--sweep.epochs=0.5"])
def test_a_sweep_shortens_its_warmup_too(option):
    found = request(option, "--data.name=digits", exp="pooling_sweep")
    base = found.plan.base
    assert len(found.notes) == 1 and "instead of 5 (--optim.warmup)" in found.notes[0]
    assert base.train.epochs == 0.5 and 0 < base.optim.warmup < 0.5


# --- options that are probably not meant -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (("--optim.schedule=drops",), "--optim.schedule=drops without --optim.drops keeps the learning rate constant"),
        (
            ("--optim.schedule=drops", "--optim.drops=1,9"),
            "the drop of the learning rate at epoch 1 takes effect only after the warm-up of 2 epochs",
        ),
        (("--network.width=0.001",), "--network.width=0.001 leaves one map per column in conv1, conv2"),
    ],
)
def test_options_that_work_but_are_probably_not_meant(options, warning):
    assert any(f"Warning: {warning}" in note for note in request(*options).notes)
    assert not request("--mode=eval", *options).notes


def test_a_sweeps_command_has_no_flags():
    found = request("--overwrite=yes", "--dry-run", "--sweep.seeds=6", exp="pooling_sweep")
    assert found.command == "python launch.py --exp=pooling_sweep --sweep.seeds=6"


@pytest.mark.parametrize("name", sorted(set(experiments.FILES)))
def test_no_shipped_experiment_has_a_warning(name):
    assert not getattr(request(exp=name), "notes", ())


# --- arms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "report", "summary"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.poling": "non_overlapping"}, "network.poling, which is not an option. Did you mean network.pooling?"),
        ({"network.pooling": "none"}, "network.pooling to 'none'; expected one of overlapping"),
        ({"network.width": "wide"}, "network.width to 'wide'; expected float"),
    ],
)
def test_a_misspelt_arm_is_refused_in_every_mode(mode, changes, message, refused, monkeypatch):
    sweep = Sweep("typo_sweep", "?", (Arm("typo", changes, "a mistake"),))
    monkeypatch.setattr(experiments, "find", lambda name: sweep if name == "typo_sweep" else SHIPPED[name])
    assert message in refused("--exp=typo_sweep", f"--mode={mode}")


SHIPPED = {name: experiments.find(name) for name in experiments.FILES}


def test_a_misspelt_option_common_to_all_arms_is_refused(refused, monkeypatch):
    sweep = dataclasses.replace(SHIPPED["pooling_sweep"], common={"train.epoch": 3})
    monkeypatch.setattr(experiments, "find", lambda name: sweep if name == "pooling_sweep" else SHIPPED[name])
    assert "train.epoch, which is not an option. Did you mean train.epochs" in refused("--exp=pooling_sweep")


def test_unknown_options_are_refused_before_anything_else():
    with pytest.raises(UsageError, match="--epochz"):
        read(["--epochz=3"])
