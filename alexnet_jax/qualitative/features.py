"""`--mode=features`: the vectors of a layer for a split or for pictures, written to an .npz or a .parquet file.

Row i is example i of the split in its order, or the i-th picture that could be read. Vectors go to disk as they come: they
may be larger than memory.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax import files
from alexnet_jax.assembly import Trained, load_trained
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.modes import Look, Request
from alexnet_jax.qualitative.examples import Batch, Pictures, batches, output_folder, picture_files
from alexnet_jax.qualitative.outputs import batch_size, chosen_layer, vectors

Add = Callable[[np.ndarray, list], None]
"""Takes vectors float32 [n, units] and what stands beside each: a label, or the path of a file."""


def write(request: Request) -> None:
    """Write the file. Raises RunError at the end where pictures could not be read; the others are in it."""
    look, files = request.look, picture_files(request.look.image)
    _check_ending(look)
    trained = load_trained(request)
    layer, split = chosen_layer(trained.trainer.table, look.layer), look.split or "test"
    path = look.out or Path(f"{layer}-{'pictures' if files else split}.npz")
    path = output_folder(look.out and path.parent, trained.checkpoint, "features") / path.name
    about = {"layer": layer, "checkpoint": str(trained.checkpoint), "classes": list(trained.data_set.classes)}
    pictures = Pictures(files, trained.splits["test"].image[0]) if files else None
    try:
        with FORMATS[path.suffix](path, "label" if pictures is None else "path", about) as add:
            rows, units = _pass(trained, layer, split, pictures, add)
    except OSError as problem:
        raise RunError(
            f"{path} was not finished ({problem}). Is the disk full? Say with --out where to write."
        ) from problem
    if rows:
        print(f"Checkpoint: {trained.checkpoint}\n{rows:,} vectors of {units:,} numbers ({layer}): {path}")
    if pictures is not None:
        pictures.close()


def _check_ending(look: Look) -> None:
    if look.out is not None and look.out.suffix not in FORMATS:
        raise UsageError(f"--out={look.out}: expected a file that ends in {' or '.join(FORMATS)}.")


def _pass(trained: Trained, layer: str, split: str, pictures: Pictures | None, add: Add) -> tuple[int, int]:
    """Give all vectors to `add`; how many, and how long they are."""
    extract, rows, units = vectors(trained, layer), 0, 0
    examples = trained.splits[split]
    total = len(examples) if pictures is None else len(pictures)
    size = batch_size(trained, total)
    passing: Iterator[Batch] = batches(examples, size) if pictures is None else pictures.batches(size)
    for images, labels, counted in tqdm(passing, total=-(-total // size), unit="batch", leave=False, disable=None):
        found = np.asarray(extract(images))[counted]
        add(found, labels[counted].tolist() if pictures is None else pictures.names[rows:])
        rows, units = rows + len(found), found.shape[1]
    return rows, units


@contextlib.contextmanager
def _npz(path: Path, beside: str, about: dict) -> Iterator[Add]:
    """Arrays: features float32 [n, units], label int32 [n] or path str [n], and `about`."""
    column: list = []
    with tempfile.TemporaryFile(dir=path.parent) as spool:

        def add(vectors: np.ndarray, values: list) -> None:
            spool.write(np.ascontiguousarray(vectors).tobytes())
            column.extend(values)

        yield add
        if not column:
            return
        spool.flush()
        arrays: dict[str, Any] = {name: np.array(value) for name, value in about.items()}
        arrays[beside] = np.array(column, np.int32 if beside == "label" else np.str_)
        arrays["features"] = np.memmap(spool, np.float32, "r").reshape(len(column), -1)
        files.write_arrays(path, arrays)


@contextlib.contextmanager
def _parquet(path: Path, beside: str, about: dict) -> Iterator[Add]:
    """Columns: features (a list of float32 of fixed length), and label or path; `about` as JSON in the schema's metadata."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    metadata = {name: json.dumps(value) for name, value in about.items()}
    writers: list[ParquetWriter] = []
    with files.replacing(path) as temporary, contextlib.ExitStack() as stack:

        def add(vectors: np.ndarray, values: list) -> None:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            kind = pa.int32() if beside == "label" else pa.string()
            table = pa.table({"features": column, beside: pa.array(values, kind)}).replace_schema_metadata(metadata)
            if not writers:
                writers.append(stack.enter_context(ParquetWriter(temporary, table.schema)))
            writers[0].write_table(table)

        yield add


FORMATS = {".npz": _npz, ".parquet": _parquet}
"""{ending: how such a file is written}"""
