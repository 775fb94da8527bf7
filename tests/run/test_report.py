"""Check that the report quotes the numbers of the run, and that the figure shows them."""

import dataclasses
import subprocess

import pytest
from PIL import Image, ImageChops

from alexnet_jax.experiment import DIGITS, Experiment, Network, Optim
from alexnet_jax.run.learning_curves import draw_learning_curves
from alexnet_jax.run.records import DataIdentity, Environment, RunRecord, RunResult, checkout, current_environment
from alexnet_jax.run.report import training_seconds, write_report

DATA = "digits (scikit-learn 1.7, 1,797 images)"
EXPERIMENT = Experiment(name="digits_debug", data=DIGITS, optim=Optim(drops=(2.0, 3.0)))
ENVIRONMENT = Environment(
    versions={"jax": "0.10.2", "flax": None},
    python="3.11.9",
    platform="Linux-x",
    processor="Example CPU",
    backend="cpu",
    device_kinds=("cpu",),
    device_count=2,
    process_count=2,
    commit="0123abcd",
    dirty=True,
)
RESULT = RunResult(
    top1_error=0.1312,
    top5_error=0.0123,
    loss=0.4567,
    examples=10000,
    best_validation_top1_error=0.1234,
    best_step=1404,
    steps=1755,
    epochs=5,
    seconds=7620.0,
)


def lines(epochs=5, error=0.5):
    found = []
    for epoch in range(1, epochs + 1):
        head = {"step": 351 * epoch, "epoch": float(epoch)}
        rate = {"learning_rate": 0.01, "images_per_second": 100.0 * epoch}
        found.append({"kind": "train", **head, "loss": 2.0 / epoch, "mean_loss": 2.2 / epoch, **rate})
        found.append(
            {"kind": "validation", **head, "loss": 2.1 / epoch, "top1_error": error / epoch, "top5_error": 0.1 / epoch}
        )
    return found


TEST_LINE = {"kind": "test", "step": 1755, "epoch": 5.0, "top1_error": 0.1312}


def report(folder, *, metrics=None, result=RESULT, experiment=EXPERIMENT, base=None, environment=ENVIRONMENT):
    metrics = lines() if metrics is None else metrics
    record = RunRecord(experiment, DataIdentity(DATA, ""), environment)
    return write_report(folder, record, metrics, result, base).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a run with its report."""
    folder = tmp_path_factory.mktemp("run")
    report(folder)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture
def no_picture(monkeypatch):
    """Skip the figure, which takes most of the time, in tests of the text."""
    monkeypatch.setattr("alexnet_jax.run.report.draw_learning_curves", lambda *_: None)


def test_headline_gives_errors_accuracies_images_and_data(text):
    headline = text.splitlines()[2]
    assert headline == (
        "**Test top-1 error 13.12 % (accuracy 86.88 %), top-5 error 1.23 % (accuracy 98.77 %), "
        f"on 10,000 test images of {DATA}.**"
    )


@pytest.mark.parametrize(
    "row",
    [
        f"| Data | {DATA} |",
        "| Test loss | 0.4567 nats per image |",
        "| Best validation | top-1 error 12.34 % after 1,404 steps |",
        "| Trained for | 5 epochs, 1,755 steps |",
        "| Time | 2 h 7 min |",
        "| Speed | 300 training images/s (median) |",
        "| Devices | 2 x cpu (cpu), in 2 processes |",
        "| Processor | Example CPU |",
        "| Commit | `0123abcd` with uncommitted changes |",
        "Versions: python 3.11.9, jax 0.10.2, flax not installed; Linux-x.",
        "| 2 | 702 | 1.0500 | 25.00 % | 5.00 % |",
    ],
)
def test_report_quotes_the_right_numbers(text, row):
    assert row in text.splitlines()


def test_every_validation_has_a_row(text):
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 2", "| 3", "| 4", "| 5"]


def test_picture_is_linked_and_there(folder, text):
    assert "](figures/learning_curves.png)" in text
    with Image.open(folder / "figures" / "learning_curves.png") as picture:
        assert picture.format == "PNG"


def test_missing_values_are_reported_as_missing(tmp_path, no_picture):
    result = RunResult(top1_error=0.5, top5_error=0.25, examples=1, steps=7)
    text = report(tmp_path, metrics=[], result=result, environment=Environment())
    for words in (
        "| Test loss | not known |",
        "| Best validation | not measured |",
        "| Trained for | not known, 7 steps |",
        "| Time | not known |",
        "| Speed | not measured |",
        "| Devices | not known |",
        "| Commit | not a git checkout |",
        "No validation was made.",
    ):
        assert words in text.splitlines()
    assert "None" not in text.split("Repeat it with")[0]


def command(text):
    return text.split("Repeat it with\n\n```\n")[1].split("\n```")[0].replace("\\\n", "").split()


def test_the_command_lists_options_that_differ(tmp_path, no_picture):
    changed = dataclasses.replace(EXPERIMENT, network=Network(width=0.25), optim=Optim(drops=()))
    assert command(report(tmp_path, experiment=changed, base=EXPERIMENT)) == [
        *("python", "launch.py", "--exp=digits_debug", "--network.width=0.25", "--optim.drops"),
        "--workdir=runs/digits_debug-again",
    ]
    assert len(command(report(tmp_path, base=EXPERIMENT))) == 4
    elsewhere = dataclasses.replace(
        EXPERIMENT, name="digits: a trial", data=dataclasses.replace(DIGITS, prepared="small")
    )
    shown = command(report(tmp_path, experiment=elsewhere, base=EXPERIMENT))
    assert "--data.prepared=small" in shown and shown[-1] == "--workdir=runs/digits-a-trial-again"


def test_without_the_shipped_experiment_all_options_are_listed(text):
    """tyro parses the options into the same experiment, although its defaults are those of another."""
    tyro = pytest.importorskip("tyro")
    words = command(text)
    other = Experiment(name=EXPERIMENT.name, network=Network(width=3.0))
    read = tyro.cli(tyro.conf.FlagConversionOff[Experiment], default=other, args=words[3:-1])
    assert read == EXPERIMENT


def test_environment_describes_this_process():
    import jax

    found = current_environment()
    assert found.versions["jax"] == jax.__version__
    assert set(found.versions) >= {"jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets"}
    assert found.device_count == len(jax.devices())
    assert found.device_kinds == (jax.devices()[0].device_kind,)


def git(folder, *arguments):
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_and_whether_it_was_changed(tmp_path):
    assert checkout(tmp_path) == (None, None)
    git(tmp_path, "init")
    (tmp_path / "inside").mkdir()
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "x")
    commit, dirty = checkout(tmp_path)
    assert commit is not None and len(commit) == 40 and dirty is False
    (tmp_path / "a").write_text("2")
    assert checkout(tmp_path) == (commit, True)
    # This is the case of a copy installed inside another project's checkout.
    assert checkout(tmp_path / "inside") == (None, None)


def draw(folder, metrics, title="digits_debug", data=DATA):
    path = folder / "new" / "curves.png"
    draw_learning_curves(metrics, path, title, data)
    with Image.open(path) as picture:
        picture.load()
        return picture.convert("RGB")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return the figure that the others are compared with."""
    return draw(tmp_path_factory.mktemp("base"), lines())


def test_the_picture_changes_with_the_data(tmp_path, base):
    assert 1000 <= base.width <= 3000 and 400 <= base.height <= 2000
    assert ImageChops.difference(base, draw(tmp_path, lines())).getbbox() is None
    left, right = (0, 0, base.width // 2, base.height), (base.width // 2, 0, base.width, base.height)
    changed = ImageChops.difference(base, draw(tmp_path, lines(error=0.7)))
    assert changed.crop(right).getbbox() and not changed.crop(left).getbbox()
    tested = draw(tmp_path, [*lines(), TEST_LINE])
    with_test = ImageChops.difference(base, tested)
    assert with_test.crop(right).getbbox() and not with_test.crop(left).getbbox()
    other_test = draw(tmp_path, [*lines(), TEST_LINE | {"top1_error": 0.2}])
    assert ImageChops.difference(tested, other_test).getbbox()


def test_picture_names_experiment_and_data(tmp_path, base):
    top = (0, 0, base.width, base.height // 8)
    for other in (draw(tmp_path, lines(), title="another"), draw(tmp_path, lines(), data="CIFAR-10")):
        assert ImageChops.difference(base, other).crop(top).getbbox()


def test_picture_of_little_or_nothing(tmp_path, base):
    """One point changes the figure, null and infinite values are skipped, and a run without lines has a figure."""
    empty = draw(tmp_path, [])
    assert ImageChops.difference(empty, draw(tmp_path, lines(epochs=1))).getbbox()
    gaps = [{"kind": "train", "step": 1, "epoch": 0.1, "loss": None, "mean_loss": float("inf")}]
    assert ImageChops.difference(base, draw(tmp_path, [*lines(), *gaps])).getbbox() is None


def test_a_clock_that_is_set_back_does_not_shorten_the_training():
    lines = [{"time": time} for time in (0, 10, 20, 30, -3570, -3560, -3550)]
    assert training_seconds(lines) == 60
    assert training_seconds([{"time": time} for time in (0, 10, 20, 30, 90_000, 90_010)]) == 40  # another process
    assert training_seconds(lines[:1]) == 0
