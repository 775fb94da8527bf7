"""Check that the report of a sweep lists every trial, and that text and figures show the comparison's numbers."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image, ImageChops

from alexnet_jax.run import drawing
from alexnet_jax.run.records import Environment
from alexnet_jax.sweeps.analysis import plots
from alexnet_jax.sweeps.analysis.comparison import ArmFacts, Cell, Comparison, Study, compare
from alexnet_jax.sweeps.analysis.report import write_report
from alexnet_jax.sweeps.analysis.text import PICTURES, words

ENVIRONMENT = Environment(
    versions={"jax": "0.10.2", "flax": None},
    python="3.11.9",
    processor="Example CPU",
    device_kinds=("cpu",),
    device_count=2,
    commit="0123abcd",
    dirty=True,
)
ARMS = (
    ArmFacts("paper", {}, "the network of the paper", parameters=62_000_000, operations=1_140_000_000),
    ArmFacts(
        "no_lrn", {"network.lrn": False}, "section 3.3 | LRN", "1.4 worse (section 3.3)", 1.4, 62_000_000, 1_130_000_000
    ),
    ArmFacts("he", {"network.init": "he", "optim.drops": [2, 3]}, "another start"),
)
SEEDS = tuple(range(6))


def curve(error, epochs=6):
    return [
        {"kind": "validation", "step": 10 * k, "epoch": float(k), "top1_error": error + 0.5 / k**2}
        for k in range(1, epochs + 1)
    ]


def trial(arm, seed, error, rng):
    wrong = np.arange(400) < 400 * error
    return Cell(
        *(arm, seed, "finished"),
        folder=f"trials/{arm}/{seed}",
        top1_error=float(wrong.mean()),
        top5_error=float(wrong.mean()) / 10,
        seconds=2000.0 * (2 if arm == "he" else 1),
        step_seconds=1800.0 * (2 if arm == "he" else 1),
        milestone=4.0 if arm == "paper" else 6.0 if seed % 2 else None,
        wrong=rng.permutation(wrong),
        metrics=curve(error),
    )


def trials(shift=0.02):
    """Return finished trials, except that `he` has one diverged, one failed and two planned trials."""
    rng = np.random.default_rng(0)
    found = []
    for arm, more in (("paper", 0.0), ("no_lrn", shift), ("he", 0.01), ("again", 0.0)):
        for seed in SEEDS:
            noise = 0.0025 * ((seed * (3 if arm == "again" else 1)) % 5)
            extra = 0.0025 * (seed % 2) if arm != "paper" else 0.0
            found.append(trial(arm, seed + 100 * (arm == "again"), 0.12 + more + noise + extra, rng))
    lost = {
        2: ("diverged", "loss is nan\nat step 200"),
        3: ("failed", "out of | memory"),
        4: ("planned", ""),
        5: ("planned", ""),
    }
    return [
        Cell("he", cell.seed, *lost[cell.seed]) if cell.arm == "he" and cell.seed in lost else cell for cell in found
    ]


STUDY = Study(
    name="ablations",
    question="Which parts matter?",
    base_arm="paper",
    base="the experiment `alexnet_cifar` as its file has it",
    control="again",
    arms=ARMS,
    margin=0.5,
    milestone=0.25,
    data_title="CIFAR-10",
    seeds=SEEDS,
    epochs=11.0,
    cells=trials(),
    environments=[ENVIRONMENT] * 2,
    command="python launch.py --sweep=ablations",
)
COMPARISONS = {
    one.arm: one for one in compare(STUDY.by_arm(), STUDY.base_arm, STUDY.family(), STUDY.control, STUDY.margin)
}


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Draw figures at a third of the resolution, which takes half the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", drawing.DPI // 3)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "new"
    assert write_report(folder, STUDY) == folder / "report.md"
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture
def no_pictures(monkeypatch):
    """Skip the figures, which take most of the time, in tests of the text."""
    monkeypatch.setattr("alexnet_jax.sweeps.analysis.report.draw_pictures", lambda *_: None)


def changed(folder, **changes):
    return write_report(folder, dataclasses.replace(STUDY, **changes)).read_text(encoding="utf-8")


def table(text, head):
    """Return {arm: {column: value}} of the table whose first column is `arm` and which has a column `head`."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("| arm |") and f"| {head} |" in line + " ")
    columns = [value.strip() for value in lines[start].strip("|").split(" | ")]
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        values = [value.strip() for value in line.strip("|").split(" | ")]
        rows[values[0]] = dict(zip(columns, values, strict=True))
    return rows


@pytest.mark.parametrize(
    "line",
    [
        "# ablations",
        "Which parts matter?",
        "- The smallest difference that matters: 0.5 points.",
        "- With 6 seeds this test cannot reach p < 0.05 (its smallest p, after Holm's correction over 2 arms, is 0.0625); 7 can.",
        "| no_lrn | `network.lrn=False` | section 3.3 \\| LRN | 1.4 worse (section 3.3) |",
        "24 planned: 20 finished, 1 diverged, 1 failed, 2 to do.",
        "**Unfinished: every number below can still change, and no verdict is final.**",
        "- he, seed 2: diverged: loss is nan at step 200",
        "- he, seed 3: failed: out of | memory",
        "- Versions: python 3.11.9, jax 0.10.2, flax not known",
        "- Commit: `0123abcd` with uncommitted changes",
        "- Devices: 2 x cpu; processor Example CPU",
        "- Time: 12 h 13 min of training, all trials together",
        "python launch.py --sweep=ablations",
    ],
)
def test_report_states(text, line):
    assert line in text.splitlines()


def test_sections_stand_in_their_order(text):
    marks = [
        "Which parts",
        "## Fixed",
        "| changes |",
        "## Trials",
        "| p, Holm |",
        "- no_lrn:",
        "| parameters |",
        "The A/A control",
    ]
    marks += [f"figures/{name}.png" for name in PICTURES] + ["## How to read it", "## Environment", "--sweep=ablations"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_main_table_quotes_the_comparison(text):
    rows = table(text, "p, Holm")
    assert list(rows) == ["paper", "no_lrn", "he", "again"]
    one, row = COMPARISONS["no_lrn"], rows["no_lrn"]
    assert row["error: mean ± sd (n)"] == f"{one.mean:.2f} ± {one.std:.2f} (6 of 6)"
    assert row["difference [95 %]"] == f"{one.difference:+.2f} [{one.interval[0]:.2f}, {one.interval[1]:.2f}]"
    assert row["95 % over test images"] == f"[{one.image_interval[0]:.2f}, {one.image_interval[1]:.2f}]"
    assert (float(row["p"]), float(row["p, Holm"])) == pytest.approx((one.p, one.p_holm), rel=0.01)
    assert (row["published"], row["verdict"]) == ("+1.4", "undecided")
    assert rows["he"]["error: mean ± sd (n)"].endswith("(2 of 6)")
    assert rows["again"]["p, Holm"] == "–" and rows["paper"]["verdict"] == "–"


def test_cost_table(text):
    rows = table(text, "training time")
    assert rows["paper"]["parameters"] == "62,000,000" and rows["he"]["operations"] == "–"
    assert rows["paper"]["training time"] == "30.0 min" and rows["he"]["training time"] == "60.0 min, 2.00 x base"
    reached = {name: row["epochs to 25 % training error"] for name, row in rows.items()}
    assert reached["paper"] == "4.00 (6 of 6 reached it)"
    assert reached["no_lrn"] == "6.00 (3 of 6 reached it), 1.50 x base"
    for name, one in COMPARISONS.items():
        expected = "–" if one.detectable is None else f"{one.detectable:.2f}"
        assert rows[name]["detectable difference"] == expected
    assert rows["no_lrn"]["correlation with base"] == f"{COMPARISONS['no_lrn'].correlation:.2f}"


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_trials_csv_has_every_cell_with_every_digit(folder):
    lines = read(folder / "trials.csv")
    assert len(lines) == len(STUDY.cells)
    for line, cell in zip(lines, STUDY.cells, strict=True):
        assert (line["arm"], int(line["seed"]), line["status"]) == (cell.arm, cell.seed, cell.status)
        assert (line["message"], line["folder"]) == (cell.message, cell.folder)
        for key in ("top1_error", "top5_error", "seconds", "step_seconds", "milestone"):
            assert (float(line[key]) if line[key] else None) == getattr(cell, key)


def test_arms_csv_has_the_comparisons_with_every_digit(folder):
    lines = {line["arm"]: line for line in read(folder / "arms.csv")}
    assert list(lines) == ["paper", "no_lrn", "he", "again"]
    for name, one in COMPARISONS.items():
        line = lines[name]
        for key in ("mean", "std", "difference", "p", "p_holm", "correlation", "equivalence_p", "detectable"):
            assert (float(line[key]) if line[key] else None) == getattr(one, key)
        assert (float(line["interval_low"]), float(line["interval_high"])) == one.interval
        assert (float(line["image_interval_low"]), float(line["image_interval_high"])) == one.image_interval
        assert (line["verdict"], int(line["pairs"])) == (one.verdict, len(one.seeds))
    assert json.loads(lines["he"]["changes"]) == ARMS[2].changes
    counts = {
        key: sum(int(line[key]) for line in lines.values())
        for key in ("trials", "finished", "diverged", "failed", "planned")
    }
    assert counts == {"trials": 24, "finished": 20, "diverged": 1, "failed": 1, "planned": 2}
    assert float(lines["paper"]["mean"]) == pytest.approx(12 + 2.5 / 6) and lines["paper"]["verdict"] == ""


def said(verdict, difference, interval=None, effect=None, pairs=8, cells=(), detectable=0.9, family=1, p_holm=None):
    numbers = {"detectable": detectable, "verdict": verdict, "p_holm": p_holm}
    one = Comparison("x", tuple(range(pairs)), 12.0, 0.1, difference, interval, **numbers)
    return words(one, ArmFacts("x", {}, "", effect=effect), cells, family)


def test_verdicts_in_words():
    assert said("worse", 1.2, (0.4, 2.0), 1.4) == "x: worse by 1.20 points [0.40, 2.00]; published 1.4 worse."
    assert said("better", -1.2, (-2.0, -0.4), -0.3) == "x: better by 1.20 points [0.40, 2.00]; published 0.3 better."
    assert said("equivalent", 0.1, (0.0, 0.2), 0.0) == "x: equivalent: +0.10 points [0.00, 0.20]; published 0."
    power = "the smallest difference that this test detects is about 0.90 points (power 80 %)"
    assert said("undecided", -0.1, (-0.9, 0.7)) == f"x: undecided: -0.10 points [-0.90, 0.70]; {power}."
    assert "; 5 pairs of seeds cannot reach p < 0.05." in said("undecided", 1.0, (0.9, 1.1), pairs=5)
    assert "cannot reach p < 0.05 over 9 arms, unless arms" in said("undecided", 1.0, (0.9, 1.1), family=9)
    assert said("undecided", 0.1, pairs=1) == "x: undecided: +0.10 points; one pair of seeds cannot reach p < 0.05."
    assert said("undecided", None, pairs=0) == "x: undecided: no seed finished both in this arm and in the base."
    lost = [Cell("x", 0, "diverged"), Cell("x", 1, "failed"), Cell("x", 2, "finished", top1_error=0.1)]
    assert said("worse", 1.2, (0.4, 2.0), cells=lost).endswith(
        " 1 of 3 trials diverged and are excluded, which favours the arm."
    )


def test_a_verdict_that_its_interval_contradicts_is_explained():
    includes, leaves_out = "the t interval includes 0, but the sign-flip test decides", "the t interval leaves out 0, but the "
    assert includes in said("worse", 0.76, (-0.001, 1.53)) and includes not in said("worse", 0.76, (0.1, 1.53))
    assert f"{leaves_out}corrected sign-flip test decides (p = 0.0625)" in said("undecided", 0.8, (0.12, 1.47), p_holm=0.0625)
    assert leaves_out not in said("undecided", 0.8, (-0.12, 1.47), p_holm=0.0625)


def test_an_equivalent_arm_has_the_interval_that_decides_it(tmp_path, no_pictures):
    wide = changed(tmp_path, margin=4.0)
    every = compare(STUDY.by_arm(), STUDY.base_arm, STUDY.family(), STUDY.control, 4.0)
    found = [one for one in every if one.verdict == "equivalent"]
    assert found
    for one in found:
        low, high = one.equivalence_interval
        assert one.interval[0] < low < high < one.interval[1] and -4 < low < high < 4
    assert "uncorrected)" in wide and "the 90 % interval as a thick bar" in wide


def test_control_that_differs_is_a_warning(tmp_path, text, no_pictures):
    assert "Distrust" not in text and "As expected" in text
    cells = [dataclasses.replace(c, top1_error=c.top1_error + 0.05) if c.arm == "again" else c for c in STUDY.cells]
    worse = changed(tmp_path, cells=cells)
    assert "is worse: +5" in worse and "**Distrust the verdicts above" in worse and "one control in twenty" in worse
    assert "This sweep has no A/A control" in changed(
        tmp_path, control=None, cells=[c for c in cells if c.arm != "again"]
    )


def test_nothing_known_yet(tmp_path):
    """The report, with figures, is about a sweep without finished trials, environments and milestone."""
    planned = [Cell(arm, seed, "planned") for arm in ("paper", "no_lrn") for seed in SEEDS]
    text = changed(tmp_path, cells=planned, environments=[], milestone=None, arms=ARMS[1:2], control=None)
    assert "12 planned: 0 finished, 0 diverged, 0 failed, 12 to do." in text
    assert "- no_lrn: undecided: no seed finished both in this arm and in the base." in text
    assert "epochs to" not in text and "None" not in text and "nan" not in text.replace("diverged: loss is nan", "")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(f"{name}.png" for name in PICTURES)


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_arms_all_lost_and_no_cell_at_all(tmp_path, no_pictures, status):
    cells = [dataclasses.replace(Cell(c.arm, c.seed, status, f"why {i}")) for i, c in enumerate(STUDY.cells)]
    text = changed(tmp_path, cells=cells)
    assert all(f"- {cell.arm}, seed {cell.seed}: {status}: {cell.message}" in text.splitlines() for cell in cells)
    assert "Unfinished" not in text and "has too few finished trials" in text
    empty = changed(tmp_path, cells=[])
    assert "0 planned" in empty and read(tmp_path / "trials.csv") == []


def test_no_temporary_file_is_left(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"report.md", "arms.csv", "trials.csv", *(f"figures/{name}.png" for name in PICTURES)}


def opened(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def test_pictures_have_a_size_and_change_with_the_data(folder, tmp_path):
    other = {name: dataclasses.replace(STUDY, cells=trials(shift=0.03)).by_arm()[name] for name in STUDY.by_arm()}
    comparisons = compare(other, "paper", ["no_lrn", "he"], "again", 0.5)
    title = f"ablations: {PICTURES['dots'][0].lower()}{PICTURES['dots'][1:]}"
    plots.dots(other, "paper", "again", tmp_path / "a" / "dots.png", title)
    plots.forest(comparisons, 0.5, {"no_lrn": 1.4}, tmp_path / "forest.png", "x")
    plots.forest(comparisons, 0.5, {}, tmp_path / "unpublished.png", "x")
    for name in PICTURES:
        picture = opened(folder / "figures" / f"{name}.png")
        assert 400 <= picture.width <= 1000 and 100 <= picture.height <= 700
        assert len(picture.getcolors(1 << 24)) > 20
    assert ImageChops.difference(opened(folder / "figures" / "dots.png"), opened(tmp_path / "a" / "dots.png")).getbbox()
    forests = opened(tmp_path / "forest.png"), opened(tmp_path / "unpublished.png")
    assert ImageChops.difference(*forests).getbbox()


def test_curves_of_many_arms_get_a_picture_each(tmp_path, folder):
    errors = {f"arm_{i}": 0.2 + 0.01 * i for i in range(9)}
    cells = {
        name: [Cell(name, 0, "finished", top1_error=error, metrics=curve(error))] for name, error in errors.items()
    }
    cells["arm_3"] = [Cell("arm_3", 0, "finished", top1_error=0.9, metrics=curve(0.9))]
    plots.curves(cells, "arm_0", tmp_path / "curves.png", "x")
    shared, many = opened(folder / "figures" / "curves.png"), opened(tmp_path / "curves.png")
    # Eight panels in two rows; each contains the colour of the base's line.
    middle = [
        many.crop((x * many.width // 4, y * many.height // 2, (x + 1) * many.width // 4, (y + 1) * many.height // 2))
        for x in range(4)
        for y in range(2)
    ]
    assert all((34, 34, 34) in {color for _, color in part.getcolors(1 << 24)} for part in middle)
    assert many.size != shared.size
