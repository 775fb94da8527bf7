"""Compare the time of a training step with those of plain jax and PyTorch, on the default device.

python -m benchmarks.step                              all sizes
python -m benchmarks.step --size=alexnet_cifar_full    one size
python -m benchmarks.step --parts                      each part of the network, compared with PyTorch
"""

import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypedDict, get_args

import tyro

from benchmarks.machine import Machine, describe, disturbance
from benchmarks.rivals import Rival, alternate, started
from benchmarks.sizes import COPIED, SIZES, Job, Size, batches

Program = Literal[
    "ours", "ours_columns_on_two", "ours_batch_on_two", "plain", "pytorch", "pytorch_channels_last", "pytorch_compile"
]
REFERENCES = ["product", "pytorch_product"]
PARTS = ["parts", "pytorch_parts", "pytorch_parts_channels_last"]
NO_TORCH = "PyTorch is not installed. To compare with it: pip install -r requirements-bench.txt -c constraints.txt"


@dataclass(frozen=True)
class Options:
    """Compare the time of a training step with those of plain jax and PyTorch."""

    size: Size | None = None
    """The network; by default all networks in sizes.py."""
    batch: int | None = None
    """Images per step; by default the batch sizes in sizes.py for this device."""
    programs: tuple[Program, ...] = ()
    """The programs to measure; by default all that can run on this device."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of all programs."""
    rounds: int = 7
    """Number of rounds; each program runs once in every round."""
    parts: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time each part of the network, forward and backward, instead of the step."""
    json: Path | None = None
    """Also write the machine and the rows to this file."""


class Speeds(TypedDict):
    """The speeds of the machine during one measurement."""

    product: float  # GFLOP/s of a product of two square matrices in jax
    pytorch_product: float | None
    copy: float  # GB/s read and written by a pass over a large array
    disturbance: str | None  # why the figures are not settled


@dataclass
class Report:
    """Everything that is measured, as it is written to the JSON file."""

    machine: Machine
    rows: list["StepRow | PartRow"] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write the report."""
        file.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=1) + "\n")


class StepRow(TypedDict):
    """The measurement of one program in the JSON file."""

    size: str
    batch: int
    precision: str
    program: str
    median_ms: float
    spread: float  # half the interquartile range as a fraction of the median
    images_per_s: float
    of_peak: float  # fraction of the rate of a matrix product
    peak_rss_mb: int
    speeds: Speeds


class PartRow(TypedDict):
    """The measurement of one part of the network in the JSON file."""

    size: str
    batch: int
    precision: str
    part: str
    ms: dict[str, float]  # {program: milliseconds}
    speeds: Speeds


def main(options: Options) -> None:
    """Measure, print and write the rows."""
    if options.rounds < 1 or (options.batch is not None and options.batch < 1):
        raise SystemExit(f"--rounds={options.rounds} --batch={options.batch}: expected at least 1.")
    report = Report(describe())
    kind = backend()
    if not has_torch():
        print(NO_TORCH)
    if kind == "gpu" and options.precision == "float32":
        print("jax and PyTorch multiply float32 in TF32.")
    machine = report.machine
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['vectors']}, {caches}")
    for size in [options.size] if options.size else SIZES:
        for batch in [options.batch] if options.batch else batches(size, kind):
            measure = measure_parts if options.parts else measure_step
            report.rows += measure(Job(size, batch, options.precision), options, kind, machine)
            if options.json:  # after each size, so that an interrupted run keeps its rows
                report.write(options.json)


def backend() -> Literal["cpu", "gpu"]:
    """Return jax's backend, queried in another process, because jax would allocate GPU memory in this one."""
    ask = "import jax; print(jax.default_backend())"
    output = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    return "cpu" if output.strip() == "cpu" else "gpu"


def has_torch() -> bool:
    """Return whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def can_run(program: str, kind: str) -> bool:
    """Return whether a program can run: PyTorch must be installed, and two virtual devices need a CPU."""
    return (has_torch() or not program.startswith("pytorch")) and (kind == "cpu" or not program.endswith("on_two"))


def measure_step(job: Job, options: Options, kind: str, machine: Machine) -> list[StepRow]:
    """Return one row per program, the fastest first."""
    print(f"\n{job.size}, batch {job.batch}, {job.precision}", flush=True)
    wanted = list(options.programs) or [program for program in get_args(Program) if can_run(program, kind)]
    with started([*wanted, *references(kind)], job) as rivals:
        yardsticks = {name: rivals.pop(name) for name in references(kind) if name in rivals}
        before = gigaflops(yardsticks["product"])
        times = alternate(rivals, "step", options.rounds)
        memory = {program: rival.memory() for program, rival in rivals.items()}
        shares = rivals["ours"].shares() if "ours" in rivals else {}
        speeds = measure_speeds(yardsticks, before, machine)
        print(f"on {yardsticks['product'].device}; {describe_speeds(speeds)}")
    print(
        f"  {'program':22s} {'ms':>7s} {'spread':>7s} {'images/s':>9s} {'of peak':>8s} {'speed-up':>8s} {'memory':>10s}"
    )
    rows = []
    for program, time in sorted(times.items(), key=lambda item: item[1].median):
        row = StepRow(
            size=job.size,
            batch=job.batch,
            precision=job.precision,
            program=program,
            median_ms=time.median,
            spread=time.spread,
            images_per_s=1000 * job.batch / time.median,
            of_peak=job.operations / time.median / 1e6 / speeds["product"],
            peak_rss_mb=memory[program],
            speeds=speeds,
        )
        faster = f"{time.median / times['ours'].median:7.2f}x" if "ours" in times else ""
        print(
            f"  {program:22s} {time.median:7.1f} {time.spread:7.1%} {row['images_per_s']:9.0f} {row['of_peak']:8.0%} "
            f"{faster:>8s} {memory[program]:6d} MiB"
        )
        rows.append(row)
    if shares:
        print("  time of ours by layer: " + ", ".join(f"{name} {part:.0%}" for name, part in shares.items()), flush=True)
    return rows


def references(kind: str) -> list[str]:
    """Return the programs that measure the machine."""
    return [name for name in REFERENCES if can_run(name, kind)]


def gigaflops(product: Rival) -> float:
    """Return the median speed of a matrix product, in GFLOP/s."""
    return (product.operations or 0) / alternate({"": product}, "step", 5)[""].median / 1e6


def measure_speeds(yardsticks: dict[str, Rival], before: float, machine: Machine) -> Speeds:
    """Measure the machine after a measurement, and compare with the speed of the product before it."""
    product = yardsticks["product"]
    after, copy = gigaflops(product), alternate({"": product}, "copy", 5)[""].median
    pytorch = gigaflops(yardsticks["pytorch_product"]) if "pytorch_product" in yardsticks else None
    return Speeds(
        product=max(before, after),
        pytorch_product=pytorch,
        copy=2 * COPIED / copy / 1e6,
        disturbance=disturbance(machine, before, after),
    )


def describe_speeds(speeds: Speeds) -> str:
    """Return the speeds as a sentence, which says whether the figures are settled."""
    pytorch = f" ({speeds['pytorch_product']:,.0f} in PyTorch)" if speeds["pytorch_product"] else ""
    quiet = f"NOT SETTLED: {speeds['disturbance']}" if speeds["disturbance"] else "the machine was quiet"
    return f"matrix product {speeds['product']:,.0f} GFLOP/s{pytorch}, memory {speeds['copy']:.1f} GB/s; {quiet}"


def measure_parts(job: Job, options: Options, kind: str, machine: Machine) -> list[PartRow]:
    """Return one row per part of the network, then print the sums by kind."""
    print(f"\n{job.size}, batch {job.batch}, {job.precision}: each part forward and backward, ms", flush=True)
    found: dict[str, dict[str, float]] = {}
    with started([*references(kind), *(program for program in PARTS if can_run(program, kind))], job) as rivals:
        if "parts" not in rivals:
            raise SystemExit("The program `ours` did not start; the messages above have its error.")
        yardsticks = {name: rivals.pop(name) for name in references(kind) if name in rivals}
        before = gigaflops(yardsticks["product"])
        print(f"  {'part':12s} {'ours':>7s} {'pytorch':>8s} {'channels_last':>14s} {'speed-up':>8s}")
        for name in rivals["parts"].names:
            times = alternate(rivals, name, options.rounds)
            found[name] = {program: time.median for program, time in times.items()}
            _print_part(name, found[name])
        speeds = measure_speeds(yardsticks, before, machine)
    print(describe_speeds(speeds))
    for kind_of_part, ms in sums(found).items():
        _print_part(kind_of_part, ms)
    common = {"size": job.size, "batch": job.batch, "precision": job.precision, "speeds": speeds}
    return [PartRow(part=name, ms=ms, **common) for name, ms in found.items()]


def sums(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Add up the times {part: {program: ms}} of convolutions, LRN, pooling and fully connected layers."""
    total: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    names = {"LRN": "all LRN", "pool": "all pools", "fc": "all fc"}
    for part, ms in found.items():
        kind = next((name for word, name in names.items() if word in part), "all convs")
        for program, time in ms.items():
            total[kind][program] += time
    return total


def _print_part(name: str, ms: dict[str, float]) -> None:
    best = min((time for program, time in ms.items() if program != "parts"), default=None)
    faster = f"{best / ms['parts']:7.2f}x" if best else ""
    pytorch = [f"{ms[program]:.1f}" if program in ms else "" for program in PARTS[1:]]
    print(f"  {name:12s} {ms['parts']:7.1f} {pytorch[0]:>8s} {pytorch[1]:>14s} {faster:>8s}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.step", description=__doc__, use_underscores=True))
