"""`--mode=features`: write the outputs of a layer for a split or for picture files to an .npz or .parquet file.

Row i is example i of the split, or the i-th readable picture. The vectors are written batch by batch, so they may exceed memory.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from alexnet_jax import files
from alexnet_jax.assembly import Trained, load_trained
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.modes import Look, Request
from alexnet_jax.qualitative.examples import Batch, Pictures, batches, check_all_read, output_folder, requested_files
from alexnet_jax.qualitative.outputs import batch_size, chosen_layer, vectors


class About(TypedDict):
    """What the file records besides the vectors."""

    layer: str
    checkpoint: str
    classes: list[str]


Add = Callable[[np.ndarray, list], None]
"""A function that appends vectors float32 [n, units] and n labels or paths to the file."""


def write(request: Request) -> None:
    """Write the file. Raises RunError if it cannot be written or, after writing the other pictures, if some were unreadable."""
    look, paths = request.look, requested_files(request.look.image)
    _check_extension(look)
    trained = load_trained(request)
    layer, split = chosen_layer(trained.setup.table, look.layer), look.split or "test"
    path = look.out or Path(f"{layer}-{'pictures' if paths else split}.npz")
    path = output_folder(look.out and path.parent, trained.checkpoint, "features") / path.name
    about = About(layer=layer, checkpoint=str(trained.checkpoint), classes=list(trained.setup.data_set.classes))
    pictures = Pictures(paths, trained.setup.splits["test"].image[0]) if paths else None
    try:
        with FORMATS[path.suffix](path, "label" if pictures is None else "path", about) as add:
            rows, units = _extract(trained, layer, split, pictures, add)
    except OSError as problem:
        raise RunError(
            f"{path} could not be written ({problem}). Free disk space or choose another path with --out."
        ) from problem
    if rows:
        print(f"{trained.description}\n{rows:,} vectors of {units:,} values ({layer}): {path}")
    if pictures is not None:
        check_all_read(pictures)


def _check_extension(look: Look) -> None:
    if look.out is not None and look.out.suffix not in FORMATS:
        raise UsageError(f"--out={look.out}: expected a file ending in {' or '.join(FORMATS)}.")


def _extract(trained: Trained, layer: str, split: str, pictures: Pictures | None, add: Add) -> tuple[int, int]:
    """Pass all vectors to `add`. Return their number and length."""
    extract, rows, units = vectors(trained, layer), 0, 0
    examples = trained.setup.splits[split]
    total = len(examples) if pictures is None else len(pictures)
    size = batch_size(trained, total)
    passing: Iterator[Batch] = batches(examples, size) if pictures is None else pictures.batches(size)
    for images, labels, counted in tqdm(passing, total=-(-total // size), unit="batch", leave=False, disable=None):
        found = np.asarray(extract(images))[counted]
        add(found, labels[counted].tolist() if pictures is None else pictures.names[rows:])
        rows, units = rows + len(found), found.shape[1]
    return rows, units


@contextlib.contextmanager
def _npz(path: Path, key: str, about: About) -> Iterator[Add]:
    """Write the arrays features float32 [n, units], label int32 [n] or path str [n], and the items of `about`."""
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
        arrays[key] = np.array(column, np.int32 if key == "label" else np.str_)
        arrays["features"] = np.memmap(spool, np.float32, "r").reshape(len(column), -1)
        files.write_arrays(path, arrays)


@contextlib.contextmanager
def _parquet(path: Path, key: str, about: About) -> Iterator[Add]:
    """Write the columns features (fixed-size lists of float32) and label or path, with `about` as JSON in the metadata."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    metadata = {name: json.dumps(value) for name, value in about.items()}
    writers: list[ParquetWriter] = []
    with files.replacing(path) as temporary, contextlib.ExitStack() as stack:

        def add(vectors: np.ndarray, values: list) -> None:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            kind = pa.int32() if key == "label" else pa.string()
            table = pa.table({"features": column, key: pa.array(values, kind)}).replace_schema_metadata(metadata)
            if not writers:
                writers.append(stack.enter_context(ParquetWriter(temporary, table.schema)))
            writers[0].write_table(table)

        yield add


FORMATS = {".npz": _npz, ".parquet": _parquet}
"""{file extension: context manager that writes such a file and yields a function `Add`}."""
