"""Images per second and core of the input for large pictures: the decoder alone, our pipeline, PyTorch's loader.

python -m benchmarks.input [--dir=FOLDER]

The pictures are those of ImageNet if tensorflow-datasets has prepared them, otherwise synthetic (500x375, smooth waves
with noise). All programs run on one core and take turns. No data is copied to a device.
"""

import contextlib
import dataclasses
import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tyro
from PIL import Image

from alexnet_jax.data import loader, picture_sets, prepared_sets
from alexnet_jax.data.dataset import DiskSplit, PictureSet
from alexnet_jax.data.images import decode, encode
from alexnet_jax.data.prepare import prepare
from alexnet_jax.data.records import Records
from alexnet_jax.errors import DataNotFoundError
from alexnet_jax.experiment import Data

BATCH = 64
MOST = 500
"""Maximum number of pictures read from a split."""


@dataclass(frozen=True)
class Options:
    """Measure the images per second of each input program on one core."""

    dir: str | None = None
    """tensorflow-datasets folder with imagenet2012. Default: TFDS_DATA_DIR."""
    seconds: float = 4.0
    """Seconds of each turn of a program."""
    rounds: int = 3
    """Number of turns of each program; their median is printed."""


def main(options: Options) -> None:
    """Measure the programs and print the table."""
    on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        found, about = pictures(options.dir, Path(folder))
        stream = found.decoded(256).train
        assert isinstance(stream, DiskSplit)
        small = prepared_stream(found, Path(folder) / "prepared")
        programs = all_programs(stream, small)
        print(f"{about}; batches of {BATCH}, {options.rounds} turns of {options.seconds:g} s each on one core\n")
        rates = {name: [] for name in programs}
        for _ in range(options.rounds):
            for name, batches in programs.items():
                rates[name].append(rate(batches, options.seconds))
        whole = statistics.median(rates["decode and resize alone"])
        print("| program | images/s | spread | of decode and resize alone |\n|---|---|---|---|")
        for name, several in rates.items():
            middle = statistics.median(several)
            print(f"| {name} | {middle:,.0f} | {(max(several) - min(several)) / middle:.0%} | {middle / whole:.2f}x |")
        print(f"\n{cost_in_pixels(stream)}")


def on_one_core() -> None:
    """Restrict this process and its threads to one core, where the system supports it (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def pictures(folder: str | None, temporary: Path) -> tuple[PictureSet, str]:
    """Return (ImageNet or synthetic pictures, description of them)."""
    try:
        found = picture_sets.find(Data("imagenet2012", dir=folder))
        few = (_first(records) for records in (found.train, found.test))
        return dataclasses.replace(found, **dict(zip(("train", "test"), few, strict=True))), found.title
    except DataNotFoundError:
        for number in range(64):
            path = temporary / "made" / "train" / "ab"[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_synthetic(number))
            test = temporary / "made" / "test" / "ab"[number % 2] / f"{number}.jpg"
            test.parent.mkdir(parents=True, exist_ok=True)
            test.symlink_to(path)
        return picture_sets.find(Data("folder", dir=str(temporary / "made"))), "64 synthetic pictures, 500x375"


def _first(records: Records) -> Records:
    """Return the first file of a split, limited to MOST records."""
    first = records.parts()[0]
    return dataclasses.replace(first, lengths=(min(len(first), MOST),))  # type: ignore[type-var]


def _synthetic(number: int) -> bytes:
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[0:375, 0:500]
    waves = rng.uniform(0.01, 0.1, (3, 2))
    smooth = np.stack([127 + 90 * np.sin(a * rows + b * columns) for a, b in waves], -1)
    return encode(np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8))


def prepared_stream(found: PictureSet, folder: Path) -> DiskSplit:
    """Return the stream of the same pictures after preparation."""
    data = Data("folder", side=256)
    with contextlib.redirect_stdout(io.StringIO()):
        prepare(found, folder, data, workers=1)
    there = prepared_sets.complete(folder)
    assert there is not None
    stream = prepared_sets.read(there, data).train
    assert isinstance(stream, DiskSplit)
    return stream


def all_programs(stream: DiskSplit, small: DiskSplit) -> dict[str, Callable[[], Iterator[int]]]:
    """Return {name: function that returns an endless iterator over the numbers of images in its batches}."""
    encoded = [stream.records.read(index)[0] for index in range(len(stream))]

    def alone(work: Callable[[bytes], Any]) -> Callable[[], Iterator[int]]:
        def batches() -> Iterator[int]:
            while True:
                for one in encoded:
                    work(one)
                yield len(encoded)

        return batches

    def ours(split: DiskSplit) -> Callable[[], Iterator[int]]:
        def batches() -> Iterator[int]:
            steps = loader.Training(split, 0, 10**6, min(BATCH, len(split)), 0, np.arange(min(BATCH, len(split))))
            with contextlib.closing(loader.batches(steps, 0)) as found:
                yield from (len(batch.labels) for batch in found)

        return batches

    programs = {
        "decode alone": alone(lambda one: simplejpeg.decode_jpeg(one, "RGB")),
        "decode and resize alone": alone(_decode_and_resize),
        "ours, from full-size pictures": ours(stream),
        "ours, from prepared pictures": ours(small),
    }
    if importlib.util.find_spec("torch") is not None:
        programs["torch DataLoader with Pillow"] = lambda: _torch(stream)
    return programs


def _decode_and_resize(encoded: bytes) -> np.ndarray:
    """Decode and resize a picture by direct calls of the two libraries."""
    pixels = simplejpeg.decode_jpeg(encoded, "RGB", min_height=256, min_width=256, min_factor=2)
    height, width, _ = pixels.shape
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    return np.asarray(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR, box))


def _torch(stream: DiskSplit) -> Iterator[int]:
    """Yield the batch sizes of PyTorch's loader, which decodes like torchvision's ImageFolder and scales as we do."""
    import torch

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(stream)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            encoded, label = stream.records.read(index)
            with Image.open(io.BytesIO(encoded)) as picture:
                picture = picture.convert("RGB")
                short = min(picture.size)
                left, top = (picture.width - short) / 2, (picture.height - short) / 2
                box = (left, top, left + short, top + short)
                small = picture.resize((256, 256), Image.Resampling.BILINEAR, box)
            return torch.from_numpy(np.array(small)), label

    torch.set_num_threads(1)
    while True:
        batches = torch.utils.data.DataLoader(Pictures(), batch_size=min(BATCH, len(stream)), shuffle=True)
        yield from (len(labels) for _, labels in batches)


def rate(batches: Callable[[], Iterator[int]], seconds: float) -> float:
    """Return the images per second, measured for at least `seconds` after a first batch."""
    running = batches()
    next(running)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        images += next(running)
    elapsed = time.perf_counter() - start
    getattr(running, "close", lambda: None)()
    return images / elapsed


def cost_in_pixels(stream: DiskSplit) -> str:
    """Return a sentence with the size of a prepared picture and the mean change of its pixels by JPEG compression."""
    changes, sizes = [], []
    for index in range(min(len(stream), 64)):
        pixels = stream[index][0]
        encoded = encode(pixels)
        sizes.append(len(encoded))
        changes.append(np.abs(decode(encoded, "it").astype(int) - pixels).mean())
    size = statistics.mean(sizes)
    return (
        f"A prepared picture takes {size / 1024:.0f} KiB ({size * 1_331_167 / 1e9:.0f} GB for the 1,331,167 pictures "
        f"of ImageNet, if all were like these), and its pixels differ by {statistics.mean(changes):.1f} of 255 grey "
        "levels on average."
    )


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.input", use_underscores=True))
