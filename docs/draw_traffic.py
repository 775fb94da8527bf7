"""What was reported of the two programs, beside what paper predicts: python -m docs.draw_traffic docs/traffic.md.

It writes the text, and the picture beside it. Nothing in them is measured here: the reported numbers are quoted, each with
where from, and the rest follows from the tables of layers.
"""

import sys
from pathlib import Path

from alexnet_jax.experiment import Network
from alexnet_jax.formatting import markdown_table, megabytes
from alexnet_jax.network.networks import ALEXNET, ALEXNET_MERGED, ALEXNET_ONE_COLUMN, build
from alexnet_jax.network.table import parameter_count
from alexnet_jax.traffic.moves import sent
from alexnet_jax.traffic.predicted import Partition, held, moves, work
from alexnet_jax.traffic.times import Machine, Times, hybrid_step, implied_link, times

BATCH = 128
"""Images per step of the two GPUs of 2012, and per GPU in "One weird trick"."""

GTX_580 = Machine(compute=1.58e12, link=6e9)
"""Peak of its data sheet in 32 bits; PCIe 2.0 x16 has 8 GB/s on paper, about 6 in practice."""

DAYS_2012 = (5.0, 6.0)
"""Section 5 of the 2012 paper: 90 cycles through 1.2 million images took five to six days on two GTX 580."""

IMAGES_2012, EPOCHS = 1.2e6, 90

K20_LINK = 6e9
"""PCIe 2.0 x16 again."""

HOURS_ONE_K20, IMAGES_2014 = 98.05, 1.28e6
"""One GPU, 90 epochs of ILSVRC-2012, in "One weird trick"; quoted from memory."""

SPEEDUPS = {2: 1.95, 4: 3.74, 8: 6.25}
"""Its table, {GPUs: speed-up} at 128 images per GPU; quoted from memory."""

SIDE_BY_SIDE = {
    "two columns": Partition("columns", 1, 2),
    "data parallel": Partition("columns", 2, 1),
    "hybrid": Partition("hybrid", 2),
}
"""Placements of the network of 2012 on two devices."""

EVERYWHERE = build(Network("alexnet", crossings="everywhere"), 1000)
"""The same maps in columns that hear each other at conv2, conv4 and conv5 too."""


def k20() -> Machine:
    """A K20 that computes as fast as the time on one of them says."""
    operations = sum(layer.operations for layer in work(ALEXNET_MERGED, Partition("columns"), BATCH))
    seconds = HOURS_ONE_K20 * 3600 * BATCH / (IMAGES_2014 * EPOCHS)
    return Machine(operations / seconds, K20_LINK)


def scaling(devices: int, kind: str = "hybrid") -> Times:
    """Of a step of the merged network with 128 images on each K20, in a placement."""
    partition = Partition("hybrid", devices) if kind == "hybrid" else Partition("columns", devices)
    return times(ALEXNET_MERGED, partition, BATCH * devices, k20())


def days(seconds_per_step: float) -> float:
    """Of the training of 2012."""
    return seconds_per_step * IMAGES_2012 * EPOCHS / BATCH / 86400


def document() -> str:
    """The whole text of docs/traffic.md."""
    return "\n\n".join([HEAD, _per_layer(), _in_2012(), _in_2014(), _thousands()]) + "\n"


HEAD = """# What the split costs

Written by `python -m docs.draw_traffic docs/traffic.md`, from the tables of layers and the numbers quoted below;
nothing here was measured. `python launch.py --exp=alexnet_imagenet --mode=traffic` prints the same for any network, mesh and
placement, and counts the bytes in the traced training step too: they agree exactly.

Bytes are what one device sends in one step, with rings: an all-gather or a reduce-scatter of S bytes over n devices sends
(n - 1) / n S from each, an all-reduce twice that. Steps are predicted without overlap: computation, then communication.

![Bytes per layer in three placements, and how they scale](traffic.png)"""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return markdown_table(heads, rows, right=range(1, len(heads)))


def _mb(number: float) -> str:
    return megabytes(number, digits=2, zero="0")


def _per_layer() -> str:
    found = {name: moves(ALEXNET, partition, BATCH) for name, partition in SIDE_BY_SIDE.items()}
    found["crossings everywhere"] = moves(EVERYWHERE, SIDE_BY_SIDE["two columns"], BATCH)
    rows = []
    for name in (spec.name for spec in ALEXNET.layers):
        cells = [" / ".join(_mb(sent(m, name, d)) for d in ("forward", "backward")) for m in found.values()]
        rows.append([name, *cells])
    total = {name: sent(m) for name, m in found.items()}
    rows.append(["all", *map(_mb, total.values())])
    kept = [f"{held(ALEXNET, partition) / 1e6:,.2f}" for partition in SIDE_BY_SIDE.values()]
    rows.append(["10^6 parameters held", *kept, f"{held(EVERYWHERE, SIDE_BY_SIDE['two columns']) / 1e6:,.2f}"])
    saved = 1 - total["two columns"] / total["crossings everywhere"]
    return (
        f"## By layer\n\nThe network of 2012 on two devices, {BATCH} images a step, 32 bits: MB that one device sends, forward / "
        "backward. In the last column its two columns hear each other in every layer (`--network.crossings=everywhere`).\n\n"
        f"{_table(['layer', *found], rows)}\n\n"
        f"Adding up the gradients of all {parameter_count(ALEXNET):,} parameters sends "
        f"{total['data parallel'] / total['two columns']:.1f} times what the columns say to each other. That conv2, conv4 and "
        f"conv5 hear their own column alone saves {saved:.0%} of what crossings everywhere send."
    )


def _in_2012() -> str:
    partition, alone = SIDE_BY_SIDE["two columns"], Partition("columns")
    two = times(ALEXNET, partition, BATCH, GTX_580)
    one = times(ALEXNET_ONE_COLUMN, alone, BATCH, GTX_580)
    share = [days(two.compute) / (d - days(two.communication)) for d in DAYS_2012]
    heads = ["", "two columns, two GPUs", "one-GPU net"]
    rows = [
        ["parameters per GPU", f"{held(ALEXNET, partition):,}", f"{held(ALEXNET_ONE_COLUMN, alone):,}"],
        ["10^9 operations per GPU and step", *(f"{t.compute * GTX_580.compute / 1e9:,.1f}" for t in (two, one))],
        ["MB sent per GPU and step", *(f"{t.communication * GTX_580.link / 1e6:,.1f}" for t in (two, one))],
        ["computing, ms at peak", *(f"{1e3 * t.compute:.1f}" for t in (two, one))],
        ["sending, ms", *(f"{1e3 * t.communication:.1f}" for t in (two, one))],
        ["90 epochs, days at peak", *(f"{days(t.step):.2f}" for t in (two, one))],
    ]
    return (
        "## Two GTX 580 in 2012\n\n"
        "Quoted: 1.58 TFLOP/s, the peak of the GTX 580's data sheet; 6 GB/s, about what PCIe 2.0 x16 gives in practice; and from "
        "the 2012 paper, section 5, that 90 cycles through 1.2 million images took five to six days, and section 3.2, that "
        '"the two-GPU net takes slightly less time to train than the one-GPU net".\n\n'
        f"{_table(heads, rows)}\n\n"
        f"Predicted: the two-GPU net takes {two.step / one.step:.3f} of the one-GPU net's time, so slightly less, as reported; "
        f"talking is {two.communication / two.step:.1%} of its step at peak. "
        f"The reported five to six days are {DAYS_2012[0] / days(two.step):.1f} to {DAYS_2012[1] / days(two.step):.1f} times as "
        f"long as predicted at peak: {min(share):.0%} to {max(share):.0%} of the peak explain them, whatever else took time "
        "included. In a step that long the talk is "
        f"{days(two.communication) / (sum(DAYS_2012) / 2):.1%} of the time. What it bought: a network "
        f"of {parameter_count(ALEXNET):,} parameters in two memories of 3 GB, with 1.7 points less top-1 error than the "
        "one-GPU net (section 3.2)."
    )


def _in_2014() -> str:
    machine = k20()
    heads = [
        "GPUs",
        "MB sent",
        "(a)",
        "(b)",
        "(c)",
        "reported",
        "(a) is off by",
        "link that (a) would need",
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
                f"{ups[0] / reported - 1:+.1%}",
                f"{needed / 1e9:.1f} GB/s",
                f"{devices * scaling(devices, 'columns').efficiency:.2f}",
            ]
        )
    return (
        "## One weird trick, 2014\n\n"
        "The merged network (64, 192, 384, 384, 256 maps, one column), 128 images per GPU, hybrid. Quoted from memory: the "
        "speed-ups 1.95, 3.74 and 6.25, and 98.05 hours for 90 epochs on one K20; 6 GB/s for its PCIe 2.0 x16. One GPU's time "
        f"gives the rate of computation, {machine.compute / 1e12:.2f} TFLOP/s, so only the scaling is predicted. The speed-ups "
        "under the three schemes for the first fully connected layer:\n\n"
        f"{_table(heads, rows)}\n\n"
        "The prediction is too good, the more so the more GPUs. It gives each of them a link of its own, no latency, and "
        "images that are there in time, where eight GPUs shared the switches and hosts of one machine. The last but one column "
        "says how fast each link would have been if it alone explained the difference. (b) is counted with one link at work at a "
        "time; where shares are passed on along a ring meanwhile, it takes as long as (c)."
    )


THOUSANDS = (2, 8, 32, 256, 4096)


def _thousands() -> str:
    rows = []
    for devices in THOUSANDS:
        both = [scaling(devices, kind) for kind in ("hybrid", "columns")]
        cells = [f"{t.communication * K20_LINK / 1e6:,.0f} ({t.efficiency:.0%})" for t in both]
        rows.append([f"{devices:,}", f"{devices * BATCH:,}", *cells])
    heads = ["devices", "images a step", "hybrid", "data parallel"]
    return (
        "## Thousands of devices\n\n"
        "The same network and machine; MB sent by each device in a step, and efficiency. Gradients weigh the same however many "
        "devices add them up; the activations that a hybrid gathers grow with the batch.\n\n"
        f"{_table(heads, rows)}"
    )


def main(path: Path) -> None:
    """Write the text, and its picture beside it."""
    from docs.traffic_figures import draw

    path.write_text(document(), encoding="utf-8")
    by_layer = {name: moves(ALEXNET, partition, BATCH) for name, partition in SIDE_BY_SIDE.items()}
    devices = [2**i for i in range(9)]
    efficiency = {
        "hybrid": [scaling(n).efficiency for n in devices],
        "data parallel": [scaling(n, "columns").efficiency for n in devices],
    }
    reported = {n: up / n for n, up in SPEEDUPS.items()}
    draw(path.with_suffix(".png"), by_layer, devices, efficiency, reported)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/traffic.md"))
