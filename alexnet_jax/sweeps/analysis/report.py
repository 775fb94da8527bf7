"""The report of a sweep: report.md, two tables as CSV, and pictures."""

import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_jax import files
from alexnet_jax.sweeps.analysis import plots
from alexnet_jax.sweeps.analysis.comparison import Cell, Comparison, Study, compare, points, spread
from alexnet_jax.sweeps.analysis.text import PICTURES, sections

TRIAL = ("arm", "seed", "status", "top1_error", "top5_error", "seconds", "step_seconds", "milestone", "folder", "message")
"""The columns of trials.csv: fields of a cell."""


def write_report(folder: Path, study: Study) -> Path:
    """Write report.md, arms.csv, trials.csv and figures/ into `folder`; return the path of the report.

    An unfinished sweep is reported with its trials so far. Raises RunError when trials were tested on different images.
    """
    folder = Path(folder)
    cells = study.by_arm()
    found = compare(cells, study.base_arm, study.family(), study.control, study.margin)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    draw_pictures(folder / "figures", study, cells, found)
    arms = [_arm_line(study, name, cells[name], found) for name in cells]
    files.write(folder / "arms.csv", _csv(list(arms[0]), arms))
    files.write(
        folder / "trials.csv", _csv(TRIAL, [{key: getattr(cell, key) for key in TRIAL} for cell in study.cells])
    )
    files.write(folder / "report.md", "\n\n".join(part for part in sections(study, cells, found) if part) + "\n")
    return folder / "report.md"


def draw_pictures(folder: Path, study: Study, cells: dict[str, list[Cell]], found: list[Comparison]) -> None:
    """Write the pictures of `text.PICTURES` to a folder."""
    effects = {arm.name: arm.effect for arm in study.arms}
    title = {name: f"{study.name}: {shown[0].lower()}{shown[1:]}" for name, shown in PICTURES.items()}
    plots.forest(found, study.margin, effects, folder / "forest.png", title["forest"])
    plots.dots(cells, study.base_arm, study.control, folder / "dots.png", title["dots"])
    plots.curves(cells, study.base_arm, folder / "curves.png", title["curves"])


def _arm_line(study: Study, name: str, cells: list[Cell], found: list[Comparison]) -> dict[str, Any]:
    count = Counter(cell.status for cell in cells)
    facts = dataclasses.asdict(study.facts(name))
    mean, std = spread(points(cells))
    blank = Comparison(name, (), mean, std, None)
    one = dataclasses.asdict(next((one for one in found if one.arm == name), blank))
    line: dict[str, Any] = {"arm": facts.pop("name"), **facts, "changes": json.dumps(facts["changes"], default=str)}
    line |= {"trials": len(cells), **{key: count[key] for key in ("finished", "diverged", "failed", "planned")}}
    for key, value in one.items():
        if key.endswith("interval"):
            line[f"{key}_low"], line[f"{key}_high"] = value or (None, None)
        elif key != "arm":
            line[key] = len(value) if key == "seeds" else value
    line["pairs"] = line.pop("seeds")
    line["verdict"] = "" if name == study.base_arm else line["verdict"]
    return line


def _csv(columns: Sequence[str], lines: list[dict[str, Any]]) -> str:
    """Return CSV text. None becomes an empty field; numbers keep every digit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
