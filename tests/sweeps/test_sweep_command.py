"""Check the output and the errors of sweep commands, without training."""

import pytest
from commands import SWEEPS, status

import experiments
from alexnet_jax.data import registry
from alexnet_jax.errors import DataNotFoundError

pytest_plugins = ["commands"]
pytestmark = pytest.mark.usefixtures("empty_folder")


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
        (
            ("--sweep.epochs=0.1", "--optim.warmup=0.5"),
            "--optim.warmup=0.5: expected at least 0 and below train.epochs=0.1",
        ),
        (("--sweep.base=alexnet_cifer",), "Did you mean --exp=alexnet_cifar?"),
        (("--sweep.base=lrn_sweep",), "lrn_sweep is a sweep; expected an experiment, such as alexnet_cifar"),
        (("--sweep.engine=slurm",), "--sweep.engine=slurm: expected one of here, ray"),
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
def test_wrong_usage_of_a_sweep_is_refused(refused, options, message):
    assert message in refused("--exp=pooling_sweep", *options)


def test_an_experiment_refuses_options_of_a_sweep(refused):
    assert "is for sweeps; alexnet_digits is one experiment" in refused("--exp=alexnet_digits", "--sweep.seeds=2")


def test_on_the_digits_a_sweep_starts_from_the_narrow_network(capsys):
    assert status("--exp=augmentation_sweep", "--data.name=digits", "--dry_run", "--sweep.seeds=1") == 0
    shown = capsys.readouterr().out
    assert "crops_only" in shown and "changes nothing: alexnet_digits has these values already" in " ".join(shown.split())
    assert "6 trials" in shown


def test_a_sweep_without_its_data_never_uses_other_data(refused, monkeypatch, empty_folder):
    monkeypatch.setattr(registry, "load", lambda data: (_ for _ in ()).throw(DataNotFoundError("No CIFAR-10 here.")))
    assert "No CIFAR-10 here. To see the sweep at work on the digits" in refused("--exp=pooling_sweep")
