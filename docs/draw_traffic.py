"""Write docs/traffic.md and its picture: `python -m docs.draw_traffic docs/traffic.md`.

The page compares predictions, which follow from the tables of layers, with the numbers that two papers report. Reported
numbers are quoted below, each with its source. Nothing is measured.
"""

import sys
import textwrap
from pathlib import Path

from alexnet_jax.experiment import Network
from alexnet_jax.formatting import markdown_table, megabytes, percent
from alexnet_jax.network.networks import ALEXNET, ALEXNET_MERGED, ALEXNET_ONE_COLUMN, build
from alexnet_jax.network.table import parameter_count
from alexnet_jax.traffic.moves import sent
from alexnet_jax.traffic.predicted import Partition, held, moves, work
from alexnet_jax.traffic.times import Machine, Times, hybrid_step, implied_link, times

BATCH = 128
"""Images per step on the two GPUs of 2012, and per GPU in "One weird trick"."""

GTX_580 = Machine(compute=1.58e12, link=6e9)
"""The float32 peak of the data sheet; PCIe 2.0 x16 has a nominal rate of 8 GB/s and reaches about 6 GB/s."""

DAYS_2012 = (5.0, 6.0)
"""Section 5 of the 2012 paper: 90 cycles through 1.2 million images took five to six days on two GTX 580 GPUs."""

IMAGES_2012, EPOCHS = 1.2e6, 90

K20_LINK = 6e9
"""PCIe 2.0 x16, as above."""

HOURS_ONE_K20, IMAGES_2014 = 98.05, 1.28e6
""""One weird trick": 90 epochs of ILSVRC-2012 on one GPU. Quoted from memory."""

SPEEDUPS = {2: 1.95, 4: 3.74, 8: 6.25}
"""{GPUs: speed-up} at 128 images per GPU in the table of "One weird trick". Quoted from memory."""

TWO_DEVICES = {
    "two columns": Partition("columns", 1, 2),
    "data parallel": Partition("columns", 2, 1),
    "hybrid": Partition("hybrid", 2),
}
"""Placements of the network of 2012 on two devices."""

EVERYWHERE = build(Network("alexnet", crossings="everywhere"), 1000)
"""The network of 2012 with crossings at conv2, conv4 and conv5 too."""

THOUSANDS = (2, 8, 32, 256, 4096)
"""Numbers of devices in the last table."""


def k20() -> Machine:
    """Return a K20 whose rate of computation explains the reported time on one GPU."""
    operations = sum(layer.operations for layer in work(ALEXNET_MERGED, Partition("columns"), BATCH))
    seconds = HOURS_ONE_K20 * 3600 * BATCH / (IMAGES_2014 * EPOCHS)
    return Machine(operations / seconds, K20_LINK)


def scaling(devices: int, kind: str = "hybrid") -> Times:
    """Return the times of a step of the merged network with 128 images on each K20."""
    partition = Partition("hybrid", devices) if kind == "hybrid" else Partition("columns", devices)
    return times(ALEXNET_MERGED, partition, BATCH * devices, k20())


def days(seconds_per_step: float) -> float:
    """Return the days of the training of 2012."""
    return seconds_per_step * IMAGES_2012 * EPOCHS / BATCH / 86400


def document() -> str:
    """Return the text of docs/traffic.md."""
    return "\n\n".join([HEAD, _per_layer(), _in_2012(), _in_2014(), _thousands()]) + "\n"


HEAD = """\
# What the split costs and what it saves

`--mode=traffic` prints the bytes that each layer sends between devices, forward and backward, and the operations that it
computes. They follow from the table of layers, for any number of devices, and none are needed. The command also traces the
training step and counts its collectives: prediction and step agree to the byte, otherwise the command fails.

```
python launch.py --exp=alexnet_imagenet --mode=traffic
python launch.py --exp=one_weird_trick --mode=traffic --mesh.data=8 --train.batch=1024 --traffic.link=6 --traffic.compute=1.60
```

The first command shows the two GPUs of 2012, the second eight GPUs of "One weird trick". `--mesh.*`, `--train.batch` and
`--network.*` choose any other case. With `--traffic.link`, the GB per second that a device can send, and `--traffic.compute`,
its 10^12 multiplications and additions per second, the command also predicts the duration of a step.

![Bytes per layer in three placements, and their scaling](traffic.png)

Nothing on this page was measured. `python -m docs.draw_traffic docs/traffic.md` writes the page and the picture from the tables
of layers and from reported numbers, which are quoted with their source.

## What is counted

- **Bytes** are those that one device sends in one step with ring algorithms. An all-gather or a reduce-scatter of S bytes over
  n devices sends (n - 1) / n S from each device, an all-reduce twice as much. MB are 10^6 bytes.
- **Operations** are the multiplications and additions of convolutions and fully connected layers on the device with the most.
  The backward pass takes twice as many as the forward pass, in conv1 as many, since images need no gradient.
- **Durations** are computation followed by communication, without overlap. Latency, pooling, normalization, the update and the
  input are left out.

Three placements are compared. *Two columns*: one column on each of two devices, which exchange activations where the table has
a crossing. *Data parallel*: the complete network on each device, with an equal share of the batch; gradients are summed.
*Hybrid*: convolutions by images, fully connected layers by units, as in "One weird trick"."""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return markdown_table(heads, rows, right=range(1, len(heads)))


def _paragraph(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), 126, break_long_words=False, break_on_hyphens=False)


def _mb(number: float) -> str:
    return megabytes(number, digits=2, zero="0")


def _per_layer() -> str:
    found = {name: moves(ALEXNET, partition, BATCH) for name, partition in TWO_DEVICES.items()}
    found["crossings everywhere"] = moves(EVERYWHERE, TWO_DEVICES["two columns"], BATCH)
    rows = []
    for name in (spec.name for spec in ALEXNET.layers):
        cells = [" / ".join(_mb(sent(m, name, d)) for d in ("forward", "backward")) for m in found.values()]
        rows.append([name, *cells])
    total = {name: sent(m) for name, m in found.items()}
    rows.append(["total", *map(_mb, total.values())])
    parameters = [f"{held(ALEXNET, partition) / 1e6:,.2f}" for partition in TWO_DEVICES.values()]
    parameters.append(f"{held(EVERYWHERE, TWO_DEVICES['two columns']) / 1e6:,.2f}")
    rows.append(["10^6 parameters per device", *parameters])
    saved = 1 - total["two columns"] / total["crossings everywhere"]
    introduction = _paragraph(
        f"The network of 2012 on two devices, {BATCH} images per step, float32. Each cell has the MB that one device sends,",
        "forward / backward. The last column is the two-column network with a crossing before every layer",
        "(`--network.crossings=everywhere`).",
    )
    conclusion = _paragraph(
        f"Data parallelism sums the gradients of all {parameter_count(ALEXNET):,} parameters and sends",
        f"{total['data parallel'] / total['two columns']:.1f} times as many bytes as the two columns. Because conv2, conv4 and",
        f"conv5 read their own column only, the columns send {percent(saved, 0)} less than with crossings everywhere.",
    )
    return f"## Bytes by layer\n\n{introduction}\n\n{_table(['layer', *found], rows)}\n\n{conclusion}"


def _in_2012() -> str:
    partition, alone = TWO_DEVICES["two columns"], Partition("columns")
    two = times(ALEXNET, partition, BATCH, GTX_580)
    one = times(ALEXNET_ONE_COLUMN, alone, BATCH, GTX_580)
    low, high = sorted(percent(days(two.compute) / (d - days(two.communication)), 0) for d in DAYS_2012)
    communication = days(two.communication) / (sum(DAYS_2012) / 2)
    heads = ["", "two-GPU net", "one-GPU net"]
    rows = [
        ["parameters per GPU", f"{held(ALEXNET, partition):,}", f"{held(ALEXNET_ONE_COLUMN, alone):,}"],
        ["10^9 operations per GPU and step", *(f"{t.compute * GTX_580.compute / 1e9:,.1f}" for t in (two, one))],
        ["MB sent per GPU and step", *(f"{t.communication * GTX_580.link / 1e6:,.1f}" for t in (two, one))],
        ["computation at peak, ms per step", *(f"{1e3 * t.compute:.1f}" for t in (two, one))],
        ["communication, ms per step", *(f"{1e3 * t.communication:.1f}" for t in (two, one))],
        ["90 epochs at peak, days", *(f"{days(t.step):.2f}" for t in (two, one))],
    ]
    sources = _paragraph(
        "Quoted: 1.58 TFLOP/s, the float32 peak in the data sheet of the GTX 580; 6 GB/s, about what PCIe 2.0 x16 reaches; from",
        "section 5 of the 2012 paper, that 90 cycles through 1.2 million images took five to six days; from section 3.2, that",
        '"the two-GPU net takes slightly less time to train than the one-GPU net".',
    )
    time = _paragraph(
        f"The two-GPU net is predicted to take {two.step / one.step:.3f} of the time of the one-GPU net, slightly less, as",
        f"reported. Communication is {percent(two.communication / two.step, 1)} of its step at peak. The reported five to six",
        "days are",
        f"{DAYS_2012[0] / days(two.step):.1f} to {DAYS_2012[1] / days(two.step):.1f} times the prediction at peak: if",
        f"computation alone explained the difference, it ran at {low} to {high} of the peak, and communication was",
        f"{percent(communication, 1)} of the time.",
    )
    gain = _paragraph(
        f"What the split made possible: a network of {parameter_count(ALEXNET):,} parameters in two memories of 3 GB, with a",
        "top-1 error 1.7 points below that of the one-GPU net (section 3.2).",
    )
    return f"## Two GTX 580 GPUs in 2012\n\n{sources}\n\n{_table(heads, rows)}\n\n{time}\n\n{gain}"


def _in_2014() -> str:
    machine = k20()
    heads = [
        "GPUs",
        "MB sent",
        "(a)",
        "(b)",
        "(c)",
        "reported",
        "error of (a)",
        "link that explains it",
        "data parallel",
    ]
    rows = []
    for devices, reported in SPEEDUPS.items():
        found, batch = scaling(devices), BATCH * devices
        ups = [devices * found.ideal / hybrid_step(ALEXNET_MERGED, devices, batch, machine, s) for s in ("a", "b", "c")]
        needed = implied_link(found.compute, found.communication * machine.link, devices, reported)
        rows.append(
            [
                str(devices),
                f"{found.communication * machine.link / 1e6:,.1f}",
                *(f"{up:.2f}" for up in ups),
                f"{reported:.2f}",
                f"{100 * (ups[0] / reported - 1):+.1f} %",
                f"{needed / 1e9:.1f} GB/s",
                f"{devices * scaling(devices, 'columns').efficiency:.2f}",
            ]
        )
    sources = _paragraph(
        "The merged network (64, 192, 384, 384 and 256 maps, one column) with 128 images per GPU in the hybrid placement. Quoted",
        "from memory: the speed-ups 1.95, 3.74 and 6.25, and 98.05 hours for 90 epochs on one K20. Assumed: 6 GB/s for its PCIe",
        f"2.0 x16. The time on one GPU gives the rate of computation, {machine.compute / 1e12:.2f} TFLOP/s, so that only the",
        "scaling is predicted. The table has the speed-ups of the hybrid under the paper's three schemes for the first fully",
        "connected layer: (a) all images are gathered at once, (b) in turn from one device at a time, (c) in slices from all",
        "devices.",
    )
    difference = _paragraph(
        "The prediction is too optimistic, and more so with more GPUs. It assumes a separate link for each GPU, no latency and",
        "an input that never waits, whereas eight GPUs shared the switches and the hosts of one machine. The last column but one",
        "is the rate of the link that would explain the difference alone. Scheme (b) is counted with one active link at a time;",
        "if the images are passed on along a ring meanwhile, it takes as long as (c).",
    )
    return f'## "One weird trick" in 2014\n\n{sources}\n\n{_table(heads, rows)}\n\n{difference}'


def _thousands() -> str:
    rows = []
    for devices in THOUSANDS:
        both = [scaling(devices, kind) for kind in ("hybrid", "columns")]
        cells = [f"{t.communication * K20_LINK / 1e6:,.0f} ({percent(t.efficiency, 0)})" for t in both]
        rows.append([f"{devices:,}", f"{devices * BATCH:,}", *cells])
    heads = ["devices", "images per step", "hybrid", "data parallel"]
    introduction = _paragraph(
        "The same network and GPUs: the MB that each device sends per step, and in parentheses the efficiency, which is the",
        "speed-up divided by the number of devices. The bytes of gradients hardly depend on the number of devices; the",
        "activations that the hybrid gathers grow with the batch.",
    )
    return f"## Thousands of devices\n\n{introduction}\n\n{_table(heads, rows)}"


def main(path: Path) -> None:
    """Write the page to `path` and the picture next to it."""
    from docs.traffic_figures import draw

    path.write_text(document(), encoding="utf-8")
    by_layer = {name: moves(ALEXNET, partition, BATCH) for name, partition in TWO_DEVICES.items()}
    devices = [2**i for i in range(9)]
    efficiency = {
        "hybrid": [scaling(n).efficiency for n in devices],
        "data parallel": [scaling(n, "columns").efficiency for n in devices],
    }
    reported = {n: up / n for n, up in SPEEDUPS.items()}
    draw(path.with_suffix(".png"), by_layer, devices, efficiency, reported)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/traffic.md"))
