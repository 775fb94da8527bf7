"""Check that `kill -9` at random moments loses nothing, and that a flipped bit in a checkpoint is detected or harmless.

python -m benchmarks.faults

A training, a training during its saves, --mode=prepare and a sweep, each with a small network or small pictures, are
killed repeatedly and restarted with the same command until they finish. Their results are then compared with those of
an undisturbed process: parameters and optimizer state bit for bit, metrics line by line, prepared files byte for byte.
"""

import json
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from alexnet_jax.formatting import markdown_table
from benchmarks.rivals import ROOT


@dataclass(frozen=True)
class Options:
    """Kill processes and flip bits; the exit status is 1 if anything was lost."""

    kills: int = 28
    """Total number of kills: 2/7 each in training and in saving, 3/14 each in preparing and in a sweep."""
    flips: int = 600
    """Number of bits to flip, each alone in an intact checkpoint."""
    seed: int = 0
    """Seed of the moments and the bits. The phase that a moment hits depends on the machine."""


NETWORK = "--network.width=0.0625 --network.fc_units=32 --optim.schedule=constant --optim.warmup=0 --train.batch=32"
PLACE = "--train.eval_batch=180 --train.log_every=1 --mesh.data=1 --mesh.column=1"
NARROW = [*NETWORK.split(), *PLACE.split()]
DIGITS = ["--exp=alexnet_digits", *NARROW]

Work = Callable[[Path], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of process to kill."""

    name: str
    share: float  # fraction of all kills
    command: Callable[[Path], list[str]]
    """Return the arguments of launch.py for a folder."""
    phase: Callable[[Path], str]
    """Return the phase in which a process was killed, inferred from the files in its folder."""
    made: Work
    """Return the results that must equal those of an undisturbed process."""
    cue: Callable[[Path], bool] | None = None
    """If given, kill the process when this becomes true instead of at a random moment."""


@dataclass
class Report:
    """The outcome for one kind of process."""

    kind: str
    hit: Counter[str] = field(default_factory=Counter)  # number of kills in each phase
    ended: int = 0
    """Number of runs that finished."""
    unequal: list[str] = field(default_factory=list)  # folders of the runs with different results


# --- killing ---------------------------------------------------------------------------------------------------------


def kill_again_and_again(kind: Kind, kills: int, chance: random.Random, folder: Path, cache: Path) -> Report:
    """Kill and restart runs until `kills` processes were killed and the last run has finished."""
    report = Report(kind.name)
    seconds = _to_the_end(kind.command(folder / "undisturbed"), cache)
    expected, number = kind.made(folder / "undisturbed"), 0
    while sum(report.hit.values()) < kills:
        number += 1
        run = folder / f"disturbed{number}"
        while sum(report.hit.values()) < kills and _killed(kind, run, chance, seconds, cache):
            report.hit[kind.phase(run)] += 1
        if sum(report.hit.values()) < kills:  # it finished before the kill: only the undisturbed run compiled
            seconds *= 0.8
        _to_the_end(kind.command(run), cache)
        report.ended += 1
        if kind.made(run) != expected:
            report.unequal.append(str(run))
        print(f"{kind.name}: {sum(report.hit.values())} of {kills} kills, {dict(report.hit)}", flush=True)
    return report


def _start(arguments: list[str], cache: Path) -> subprocess.Popen:
    variables = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command, log = [sys.executable, "launch.py", *arguments], (cache / "output").open("w")
    with log:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT)


def _to_the_end(arguments: list[str], cache: Path) -> float:
    """Run launch.py to its end and return the seconds. Raises RuntimeError with its output if it fails."""
    start = time.monotonic()
    status = _start(arguments, cache).wait()
    if status:
        raise RuntimeError(f"launch.py {' '.join(arguments)} ended with {status}: {(cache / 'output').read_text()}")
    return time.monotonic() - start


def _killed(kind: Kind, run: Path, chance: random.Random, seconds: float, cache: Path) -> bool:
    """Start a process and kill it. Return False if it finished before the kill."""
    process, end = _start(kind.command(run), cache), time.monotonic() + chance.uniform(0, seconds)
    if kind.cue is not None:
        for _ in range(chance.randint(1, 4)):  # not always the first save of a process
            _wait(lambda: kind.cue is not None and not kind.cue(run), process)
            _wait(lambda: kind.cue is not None and kind.cue(run), process)
        end = time.monotonic() + chance.uniform(0, 0.03)
    _wait(lambda: time.monotonic() >= end, process)
    process.kill()
    status = process.wait()
    if status > 0:
        raise RuntimeError(f"{kind.name} ended with {status}: {(cache / 'output').read_text()}")
    return status != 0


def _wait(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    while not happened() and process.poll() is None:
        time.sleep(0.001)


# --- what a kill and a save cost ------------------------------------------------------------------------------------


def resume_seconds(folder: Path, cache: Path, repeats: int = 5) -> list[float]:
    """Return the seconds from a kill to the first new step, with the same command started at once."""
    run, found = folder / "resumed", []
    arguments = [*DIGITS, f"--workdir={run}", f"--train.epochs={4 * (repeats + 1)}", "--train.save_every=5"]
    process = _start(arguments, cache)
    _wait(lambda: _latest_line(run) >= 20, process)
    for _ in range(repeats):
        process.kill()
        process.wait()
        start, before = time.monotonic(), _latest_line(run)
        process = _start(arguments, cache)
        _wait(lambda before=before: _latest_line(run) > before, process)
        found.append(time.monotonic() - start)
        _wait(lambda before=before: _latest_line(run) >= before + 20, process)
    process.kill()
    process.wait()
    return found


def _latest_line(run: Path) -> int:
    """Return the step of the last complete line of a run's metrics, 0 if there is none."""
    time.sleep(0.02)
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def saving_share(folder: Path, cache: Path, repeats: int = 3) -> tuple[float, float]:
    """Return (fraction of the training time, seconds for each save) that saving every five steps adds to one save an epoch.

    The network is that of the other trainings; the trainings with and without take turns, and the medians are compared.
    """
    seconds: dict[int, list[float]] = {0: [], 5: []}
    for number in range(repeats):
        for every, found in seconds.items():
            run = folder / f"saving{every}-{number}"
            _to_the_end([*DIGITS, f"--workdir={run}", "--train.epochs=4", f"--train.save_every={every}"], cache)
            found.append(json.loads((run / "result.json").read_text())["seconds"])
    usual, often = (statistics.median(found) for found in seconds.values())
    saves = 4 * (STEPS_PER_EPOCH // 5)
    return (often - usual) / often, (often - usual) / saves


STEPS_PER_EPOCH = 39
"""Of the digits in batches of 32."""


# --- what is killed --------------------------------------------------------------------------------------------------


def kinds(pictures: Path) -> list[Kind]:
    """Return all kinds of processes; `pictures` is a folder of classes."""

    def training(run: Path) -> list[str]:
        return [*DIGITS, f"--workdir={run}", "--train.epochs=4", "--train.save_every=5"]

    def preparing(run: Path) -> list[str]:
        data = f"--data.name=folder --data.dir={pictures} --data.side=16 --data.workers=2".split()
        return ["--exp=alexnet_imagenet_debug", "--mode=prepare", "--data.crop=12", f"--data.prepared={run}", *data]

    def sweep(run: Path) -> list[str]:
        own = "--data.name=digits --sweep.epochs=2 --sweep.seeds=2 --sweep.arms=original_biases --train.save_every=10"
        return ["--exp=update_rule_sweep", f"--workdir={run}/sweep", *NARROW, *own.split()]

    return [
        Kind("training", 2 / 7, training, _training_phase, _run_made),
        Kind("saving", 2 / 7, training, _training_phase, _run_made, _saves),
        Kind("preparing", 3 / 14, preparing, _preparing_phase, _prepared),
        Kind("sweep", 3 / 14, sweep, _sweep_phase, _sweep_made),
    ]


def _saves(run: Path) -> bool:
    return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def _training_phase(run: Path) -> str:
    if not (run / "metrics.jsonl").exists():
        return "starting"
    if _saves(run):
        return "saving"
    lines = (run / "metrics.jsonl").read_text().splitlines() or ["{}"]
    return "after the last step" if '"test"' in lines[-1] else "training, validating or starting again"


def _preparing_phase(folder: Path) -> str:
    if not (folder / "parts.jsonl").exists():
        return "starting"
    if any(folder.glob(".*.part")):
        return "writing pictures"
    return "after the last file" if (folder / "prepared.json").exists() else "between files or checking"


def _sweep_phase(folder: Path) -> str:
    begun = [path for path in (folder / "trials").glob("*/seed*") if path.is_dir()]
    if not begun:
        return "starting"
    unfinished = [trial for trial in begun if not (trial / "result.json").exists()]
    return "in a trial" if unfinished else "between trials or reporting"


# --- results ---------------------------------------------------------------------------------------------------------


def _run_made(run: Path) -> Any:
    passing = ("time", "seconds", "images_per_second")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    trees = read(run / "checkpoints" / str(steps[-1]))
    return steps, bits(trees), [{k: v for k, v in line.items() if k not in passing} for line in lines]


def _sweep_made(folder: Path) -> Any:
    cells = [line.split(",")[:3] for line in (folder / "sweep" / "trials.csv").read_text().splitlines()]
    trials = sorted(path for path in (folder / "trials").glob("*/seed*") if path.is_dir())
    return cells, [(trial.relative_to(folder), _run_made(trial)) for trial in trials]


def _prepared(folder: Path) -> Any:
    files = [
        path for path in folder.iterdir() if path.name not in (".lock", "parts.jsonl")
    ]  # in the order of their ends
    return {path.name: path.read_bytes() for path in files}


def read(step: Path) -> dict[str, Any]:
    """Return the trees of a checkpoint, read on one device by orbax alone, without the program's own checks."""
    import jax
    import orbax.checkpoint as ocp

    from alexnet_jax.run.restore import OPTIMIZER, PARAMETERS

    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = {}
    with ocp.PyTreeCheckpointer() as checkpointer:
        for item in (PARAMETERS, OPTIMIZER):
            there = checkpointer.metadata(step / item).item_metadata.tree
            here = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), there)
            arguments = ocp.checkpoint_utils.construct_restore_args(here)
            found[item] = checkpointer.restore(step / item, args=ocp.args.PyTreeRestore(here, arguments))
    return found


def bits(trees: Any) -> dict[str, bytes]:
    """Return {path: bytes} of the leaves of a tree."""
    import jax
    import numpy as np

    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in jax.tree.leaves_with_path(trees)}


# --- flipped bits ----------------------------------------------------------------------------------------------------


def flip_bits(step: Path, count: int, chance: random.Random, folder: Path) -> Counter[str]:
    """Flip `count` bits, one at a time, in a copy of a checkpoint, and return the number of each outcome."""
    import jax

    from alexnet_jax.errors import Damaged, UsageError
    from alexnet_jax.run.restore import restore_trees

    sound = read(step)
    here = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), sound)
    copy = Path(shutil.copytree(step, folder / step.name))
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
    sizes, outcomes = [file.stat().st_size for file in files], Counter[str]()
    for number in range(count):
        file = chance.choice(files) if number % 2 else chance.choices(files, sizes)[0]  # any file, or any byte
        data, bit = bytearray(file.read_bytes()), chance.randrange(8 * file.stat().st_size)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        try:
            equal = bits(restore_trees(copy, here)) == bits(sound)
            outcomes["harmless" if equal else "silently wrong"] += 1
        except Damaged:
            outcomes["found"] += 1
        except UsageError:
            outcomes["mistaken for another network"] += 1
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
    return outcomes


# --- main ------------------------------------------------------------------------------------------------------------


def main(options: Options) -> bool:
    """Run all tests, print the tables, and return whether nothing was lost."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache, pictures = folder / "programs", folder / "pictures"
        cache.mkdir()
        _write_pictures(pictures)
        _to_the_end([*DIGITS, f"--workdir={folder / 'compiled'}", "--train.epochs=1"], cache)
        resumed, (share, each) = resume_seconds(folder, cache), saving_share(folder, cache)
        reports = []
        for kind in kinds(pictures):
            kills = round(kind.share * options.kills)
            reports.append(kill_again_and_again(kind, kills, chance, folder / kind.name, cache))
        run = folder / "flipped"
        _to_the_end([*DIGITS, f"--workdir={run}", "--train.epochs=1"], cache)
        outcomes = flip_bits(run / "checkpoints" / "39", options.flips, chance, folder)
    print(_table(reports, outcomes))
    print(
        f"\nFrom a kill to the first new step: median {statistics.median(resumed):.1f} s of {len(resumed)} restarts "
        f"({min(resumed):.1f} to {max(resumed):.1f} s). Saving every 5 steps took {share:.1%} of the training time, "
        f"{each:.3f} s for each save."
    )
    wrong = outcomes["silently wrong"] + outcomes["mistaken for another network"]
    return not wrong and not any(report.unequal for report in reports)


def _write_pictures(root: Path) -> None:
    """Write 3,000 training and 300 test pictures, in three classes."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0)
    for number in range(3_300):
        file = root / ("train" if number < 3_000 else "val") / f"class{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 256, (20, 24, 3), np.uint8)).save(file)


def _table(reports: list[Report], outcomes: Counter[str]) -> str:
    rows = []
    for report in reports:
        hit = ", ".join(f"{phase} {count}" for phase, count in report.hit.most_common())
        equal = f"{report.ended - len(report.unequal)} of {report.ended}"
        rows.append([report.kind, str(sum(report.hit.values())), hit, str(report.ended), equal])
    names = ("found", "harmless", "silently wrong", "mistaken for another network")
    flipped = [str(sum(outcomes.values())), *(str(outcomes[name]) for name in names)]
    kills = ("what was killed", "kills", "where they hit", "runs brought to their end", "equal to the undisturbed")
    return f"{markdown_table(kills, rows)}\n\n{markdown_table(('single flipped bits', *names), [flipped])}"


if __name__ == "__main__":
    sys.exit(not main(tyro.cli(Options, prog="python -m benchmarks.faults", description=__doc__, use_underscores=True)))
