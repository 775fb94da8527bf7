"""The sections of a sweep's report, in the order in which a sceptical reader asks for them."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from alexnet_jax.formatting import duration, markdown_table, percent
from alexnet_jax.sweeps.analysis.comparison import ArmFacts, Cell, Comparison, Study, points, spread
from alexnet_jax.sweeps.analysis.inference import FLIPS, POWER, is_exact
from alexnet_jax.sweeps.plan import ALPHA, reach, smallest_p

PICTURES = {
    "forest": "Differences from the base with 95 % intervals",
    "dots": "Test error of every seed",
    "curves": "Validation error against epoch",
}
"""{name under figures/: what it shows}, in the order of the report."""

Span = tuple[float, float] | None


def sections(study: Study, cells: dict[str, list[Cell]], found: list[Comparison]) -> Iterable[str]:
    """Yield the report in Markdown, section by section; a section without content is empty."""
    yield f"# {study.name}\n\n{study.question}"
    yield f"## Fixed before the first trial\n\n{_plan(study)}"
    yield markdown_table(("arm", "changes", "reason", "published"), [_plan_row(study.facts(name)) for name in cells])
    yield f"## Trials\n\n{_counts(study.cells)}"
    yield "## Results\n\nTop-1 errors on the test images in %, differences in points; positive means worse than the base."
    differences = ("difference [95 %]", "p", "p, Holm", "95 % over test images", "published", "verdict")
    heads = ("arm", "error: mean ± sd (n)", *differences)
    by_name = {one.arm: one for one in found}
    yield markdown_table(heads, [_result_row(study.facts(name), cells[name], by_name.get(name)) for name in cells])
    tested = [(one, study.facts(one.arm), cells[one.arm]) for one in found if one.arm != study.control]
    yield "\n".join(f"- {words(*each, len(tested))}" for each in tested)
    heads = ["arm", "parameters", "operations", "training time", "top-5 error", "correlation with base"]
    heads.append("detectable difference")
    heads += [] if study.milestone is None else [f"epochs to {100 * study.milestone:g} % training error"]
    yield markdown_table(heads, [_cost_row(study, name, cells, by_name.get(name)) for name in cells])
    yield _control(study, by_name)
    yield "\n\n".join(f"![{caption}](figures/{name}.png)" for name, caption in PICTURES.items())
    yield f"## How to read it\n\n{_reading(study)}"
    yield f"## Environment\n\n{_made_with(study)}\n\nRepeat it with\n\n```\n{study.command}\n```"


def _plan(study: Study) -> str:
    count, family = len(study.seeds), len(study.family())
    how = "exact, over all sign flips" if is_exact(count) else f"over {FLIPS:,} random sign flips"
    control = f" The control `{study.control}` is tested like an arm, outside the correction." if study.control else ""
    return "\n".join(
        [
            f"- The base: {study.base}.",
            f"- Every arm is the base with the changes below, trained for {study.epochs:g} epochs on "
            f"{study.data_title} with each of {count} seeds: {', '.join(map(str, study.seeds))}.",
            "- Measured: top-1 error on the test images after the final epoch; differences are paired by seed.",
            f"- The smallest difference that matters: {study.margin:g} point{'s' * (study.margin != 1)}.",
            f"- Better or worse: two-sided sign-flip test ({how}), p < {ALPHA} after Holm's correction over {family} "
            f"arm{'s' * (family != 1)}.{control}",
            f"- Equivalent: neither, and two one-sided t tests at ±{study.margin:g} points give p < {ALPHA}. "
            "Anything else is undecided. The equivalence test is not corrected for the number of arms.",
            f"- {reach(count, max(family, 1))}",
            *_grown(study),
        ]
    )


def _grown(study: Study) -> list[str]:
    """Report later enlargements: adding seeds after looking at results makes the p-values too small."""
    return [
        f"- Enlarged on {step.time}, with {step.finished} trials finished, to {step.seeds} seeds and the arms "
        f"{', '.join(step.arms)}. If results had been looked at by then, p is too small."
        for step in study.history[1:]
    ]


def _plan_row(arm: ArmFacts) -> list[str]:
    changes = ", ".join(f"`{key}={value}`" for key, value in arm.changes.items())
    return [arm.name, changes or "none", arm.reason, arm.published or "–"]


def _counts(cells: list[Cell]) -> str:
    count = Counter(cell.status for cell in cells)
    head = (
        f"{len(cells)} planned: {count['finished']} finished, {count['diverged']} diverged, {count['failed']} failed, "
    )
    lines = [f"{head}{count['planned']} to do."]
    if count["planned"]:
        lines.append("**Unfinished: every number below can still change, and no verdict is final.**")
    lost = [cell for cell in cells if cell.status in ("diverged", "failed")]
    lines.append("\n".join(f"- {c.arm}, seed {c.seed}: {c.status}: {_line(c.message) or 'no message'}" for c in lost))
    return "\n\n".join(line for line in lines if line)


def _result_row(arm: ArmFacts, cells: list[Cell], one: Comparison | None) -> list[str]:
    mean, std = spread(points(cells))
    error = f"{_number(mean)}{'' if std is None else f' ± {std:.2f}'} ({len(points(cells))} of {len(cells)})"
    if one is None:
        return [arm.name, error, *["–"] * 6]
    difference = f"{_number(one.difference, '+.2f')} {_span(one.interval)}".strip()
    row = [difference, _number(one.p, ".3g"), _number(one.p_holm, ".3g"), _span(one.image_interval) or "–"]
    return [arm.name, error, *row, _number(arm.effect, "+g"), _verdict(one)]


def _verdict(one: Comparison) -> str:
    return f"equivalent (p = {one.equivalence_p:.2g}, uncorrected)" if one.verdict == "equivalent" else one.verdict


def words(one: Comparison, arm: ArmFacts, cells: Sequence[Cell], family: int) -> str:
    """Return the verdict on an arm in a sentence or two.

    It includes the published difference, the number of its trials (`cells`) that diverged and, for an undecided arm, the
    difference that its pairs can detect when it is tested together with `family` arms in all.
    """
    if one.difference is None:
        return f"{one.arm}: undecided: no seed finished both in this arm and in the base."
    parts = [f"{one.verdict}: {one.difference:+.2f} points {_span(one.interval)}".strip()]
    if one.verdict in ("better", "worse"):
        parts = [f"{one.verdict} by {abs(one.difference):.2f} points {_span(_turned(one))}".strip()]
    elif one.verdict == "undecided" and smallest_p(len(one.seeds), family) >= ALPHA:
        some = "one pair of seeds" if len(one.seeds) == 1 else f"{len(one.seeds)} pairs of seeds"
        alone = smallest_p(len(one.seeds), 1) < ALPHA
        unless = f" over {family} arms, unless arms with more pairs do first" if alone else ""
        parts.append(f"{some} cannot reach p < {ALPHA}{unless}")
    elif one.verdict == "undecided":
        detectable = f"{_number(one.detectable)} points"
        parts.append(f"the smallest difference that this test detects is about {detectable} (power {100 * POWER:g} %)")
    parts += _disagreement(one)
    if arm.effect is not None:
        side = " worse" if arm.effect > 0 else " better" if arm.effect < 0 else ""
        parts.append(f"published {abs(arm.effect):g}{side}")
    diverged = sum(cell.status == "diverged" for cell in cells)
    lost = f" {diverged} of {len(cells)} trials diverged and are excluded, which favours the arm." if diverged else ""
    return f"{one.arm}: {'; '.join(parts)}.{lost}"


def _disagreement(one: Comparison) -> list[str]:
    """Explain a verdict that the 95 % interval seems to contradict."""
    if one.interval is None:
        return []
    includes_zero = one.interval[0] <= 0 <= one.interval[1]
    if one.verdict in ("better", "worse") and includes_zero:
        return ["the t interval includes 0, but the sign-flip test decides, which assumes no normal distribution"]
    if one.verdict == "undecided" and not includes_zero:
        p = one.p if one.p_holm is None else one.p_holm
        return [] if p is None else [f"the t interval leaves out 0, but the corrected sign-flip test decides (p = {p:.3g})"]
    return []


def _turned(one: Comparison) -> Span:
    """Return the interval of how much worse, or how much better, an arm is."""
    if one.interval is None or one.verdict == "worse":
        return one.interval
    return -one.interval[1], -one.interval[0]


def _cost_row(study: Study, name: str, cells: dict[str, list[Cell]], one: Comparison | None) -> list[str]:
    arm = study.facts(name)
    times, base_times = (_known(cells[one], "step_seconds") for one in (name, study.base_arm))
    time = "–" if not times else duration(statistics.median(times))
    top5 = _known(cells[name], "top5_error")
    row = [name, _count(arm.parameters), _count(arm.operations)]
    row.append(time + _ratio(times, base_times, statistics.median) * (one is not None))
    row.append(percent(statistics.mean(top5)) if top5 else "–")
    row += ["–", "–"] if one is None else [_number(one.correlation), _number(one.detectable)]
    if study.milestone is not None:
        reached, base = _known(cells[name], "milestone"), _known(cells[study.base_arm], "milestone")
        mean = f"{statistics.mean(reached):.2f}" if reached else "–"
        finished = len(points(cells[name]))
        row.append(
            f"{mean} ({len(reached)} of {finished} reached it){_ratio(reached, base, statistics.mean) * (one is not None)}"
        )
    return row


def _control(study: Study, by_name: dict[str, Comparison]) -> str:
    if study.control is None:
        return "This sweep has no A/A control, so it does not show how often these tests find a difference where there is none."
    one = by_name[study.control]
    if one.p is None:
        return f"The A/A control `{study.control}` has too few finished trials for a verdict."
    found = (
        f"The A/A control `{study.control}` (the base with other seeds) is {one.verdict}: {one.difference:+.2f} points "
    )
    found += f"{_span(one.interval)}, p = {one.p:.3g}."
    if one.verdict == "undecided" and smallest_p(len(one.seeds), 1) >= ALPHA:
        return f"{found} This is uninformative: {len(one.seeds)} pairs of seeds cannot detect a difference."
    if one.verdict in ("equivalent", "undecided"):
        return f"{found} As expected, no difference was found where there is none."
    return (
        f"{found} **Distrust the verdicts above: the test found a difference where there is none.** By chance this happens to "
        "one control in twenty; repeat it with new seeds to find out."
    )


def _reading(study: Study) -> str:
    text = (
        "Errors are those of the final epoch on the test images, which no choice depends on: epochs and settings were chosen on "
        "validation images. Trials with equal seeds have equal streams of initial weights and the same order of examples in "
        "every epoch; the correlation column shows how much of their variation they share. The interval of the difference "
        "describes its variation over seeds, the one over test images its variation over images for the same trained "
        "networks; neither contains the other. Two one-sided tests decide whether the 90 % interval lies within the margin, so "
        "an arm can be equivalent although its 95 % interval leaves the margin slightly; the picture has the 90 % interval as a "
        "thick bar. This test is not corrected over arms. "
        "Undecided does not mean equal: the detectable difference is the one that the sign-flip test, corrected over the arms, "
        f"detects with power {100 * POWER:g} % for this number of seeds and this spread. "
        "Diverged and failed trials have no test error; they are listed, counted in (n of planned), and excluded from all "
        "differences. Training time is that of the steps at their median speed, without compilation, evaluations and "
        "checkpoints. Published differences come from other data, networks or schedules unless their source states otherwise."
    )
    if study.control is not None:
        text += (
            " The seeds of the control differ from those of the base: pairs are formed by position, and no correlation is "
            "expected. Sweeps with the same base and folder share their trials, so that the control in their reports is one "
            "check, not several."
        )
    return text


def _made_with(study: Study) -> str:
    several = study.environments
    versions = [{"python": one.python, **one.versions} for one in several]
    names = dict.fromkeys(["python", *(name for one in versions for name in one)])
    commits = (f"`{one.commit}`" + " with uncommitted changes" * bool(one.dirty) for one in several if one.commit)
    kinds = (f"{one.device_count} x {', '.join(one.device_kinds)}" for one in several if one.device_kinds)
    seconds = sum(cell.seconds for cell in study.cells if cell.seconds is not None)
    lines = {
        "Versions": ", ".join(f"{name} {_all(one.get(name) for one in versions)}" for name in names),
        "Commit": _all(commits),
        "Devices": f"{_all(kinds)}; processor {_all(one.processor for one in several)}",
        "Time": f"{duration(seconds)} of training, all trials together",
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def _all(values: Iterable[str | None]) -> str:
    """Join the distinct values: trials may have run on several machines and versions."""
    return " and ".join(dict.fromkeys(value for value in values if value)) or "not known"


def _line(text: str) -> str:
    return " ".join(text.split())


def _known(cells: Sequence[Cell], key: str) -> list[float]:
    values = [getattr(cell, key) for cell in cells if cell.status == "finished"]
    return [value for value in values if value is not None]


def _ratio(values: list[float], base: list[float], middle: Any) -> str:
    return f", {middle(values) / middle(base):.2f} x base" if values and base and middle(base) else ""


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _span(span: Span) -> str:
    return "" if span is None else f"[{span[0]:.2f}, {span[1]:.2f}]"
