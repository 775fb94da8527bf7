"""`--mode=prepare`: decode every picture once, cut out its central square, and store it as JPEG; resumable and verified."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from alexnet_jax import files
from alexnet_jax.data import loader, picture_sets, prepared_sets
from alexnet_jax.data.dataset import DataSet, DiskSplit, PictureSet
from alexnet_jax.data.images import encode
from alexnet_jax.data.prepared_sets import MANIFEST, SPLITS, Preparation
from alexnet_jax.data.records import LABEL
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.formatting import size
from alexnet_jax.modes import Request
from alexnet_jax.processes.workers import initialize_worker
from alexnet_jax.run.workdir import Workdir

JOURNAL = "parts.jsonl"
"""One line for each complete file; the first line says what is prepared in the folder."""

BYTES_PER_PIXEL = 0.5
"""Upper limit for a JPEG of quality 95, used to check the free disk space."""

FAULTS = 20
"""Largest number of damaged pictures that are listed."""


@dataclass(frozen=True)
class Part:
    """The pictures of a split that one file will hold."""

    split: str
    file: str
    pictures: DiskSplit

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Written:
    """The outcome of writing a part."""

    checksum: int
    faults: list[str]
    """Messages about pictures that cannot be read. With any of them, no file is written."""


def run(request: Request) -> None:
    """Prepare the data of an experiment. The same command resumes where it was stopped, and reports when nothing is left to do.

    Raises:
      UsageError: The data set is kept in memory, or the folder holds something else.
      RunError: Pictures cannot be read, or files differ from what was written; the message lists them.
    """
    options = request.experiment.data
    if options.name not in ("imagenet2012", "folder"):
        raise UsageError(f"--mode=prepare: {options.name} is kept in memory; only imagenet2012 and folder are prepared.")
    if options.prepared == prepared_sets.NONE:
        raise UsageError("--mode=prepare --data.prepared=none: expected a folder to write to, or no --data.prepared.")
    originals = picture_sets.find(options)
    for sentence in originals.notes():
        print(sentence)
    folder = prepared_sets.default_folder(options, originals)
    if options.prepared is not None:
        folder = Path(options.prepared).expanduser().absolute()
    prepare(originals, folder, options, options.workers or loader.cores(), overwrite=request.overwrite)


def prepare(originals: PictureSet, folder: Path, options: Data, workers: int, *, overwrite: bool = False) -> None:
    """Prepare pictures in `folder` with `workers` processes. Raises the errors of `run`.

    With `overwrite`, delete first what was prepared in the folder before, from any pictures.
    """
    wanted = prepared_sets.preparation(options, originals)
    with Workdir(folder, "--data.prepared").locked():
        if overwrite and any((folder / name).exists() for name in (JOURNAL, MANIFEST)):
            _clear(folder)
        finished = prepared_sets.finished(folder, wanted)
        if finished is not None:
            print(f"{prepared_sets.read(finished, options).title} is complete: {folder}")
            return
        done, parts = _journal(folder, wanted), list(_parts(originals.decoded(options.side)))
        todo = [part for part in parts if part.file not in done]
        _check_room(folder, sum(map(len, todo)), options.side)
        print(f"{originals.title}: {len(parts) - len(todo)} of {len(parts)} files are complete; writing to {folder}")
        _write_all(folder, todo, done, workers)
        _verify(folder, parts, done, workers)
        listed = {split: [[p.file, len(p), done[p.file]] for p in parts if p.split == split] for split in SPLITS}
        files.write_json(folder / MANIFEST, wanted.to_json() | {"files": listed})
    stored = sum((folder / part.file).stat().st_size for part in parts)
    print(
        f"{sum(map(len, parts)):,} pictures of {options.side}x{options.side}, {stored / 1e6:,.1f} MB, written and verified: "
        f"{folder}"
    )


def _clear(folder: Path) -> None:
    """Delete what a preparation wrote, and nothing else."""
    records = (path for split in SPLITS for path in folder.glob(f"{split}.array_record-*"))
    for path in (folder / MANIFEST, folder / JOURNAL, *records):
        path.unlink(missing_ok=True)


def _parts(data_set: DataSet) -> Iterator[Part]:
    for split, pictures in zip(SPLITS, (data_set.train, data_set.test), strict=True):
        assert isinstance(pictures, DiskSplit)
        pieces = pictures.records.parts()
        for number, records in enumerate(pieces):
            file = f"{split}.array_record-{number:05d}-of-{len(pieces):05d}"
            yield Part(split, file, dataclasses.replace(pictures, records=records, indices=np.arange(len(records))))


def _journal(folder: Path, wanted: Preparation) -> dict[str, int]:
    """Return {file: checksum} of the files that earlier runs completed; begin the journal if it does not exist.

    A line that is incomplete because the process was killed is ignored. Raises UsageError if the folder holds something else.
    """
    path, header = folder / JOURNAL, json.dumps(wanted.to_json())
    if not path.exists():
        others = Workdir(folder).contents()
        if others:
            raise UsageError(
                f"{folder} holds {', '.join(sorted(others)[:5])}; nothing was changed. Choose an empty --data.prepared."
            )
        files.write(path, header + "\n")
        return {}
    first, *lines = path.read_text().splitlines() or [""]
    if first != header:
        raise UsageError(
            f"{folder} holds another preparation (other pictures or another --data.side). Choose another --data.prepared."
        )
    for leftover in (one for split in SPLITS for one in folder.glob(f".{split}.array_record-*")):
        leftover.unlink()
    done = {}
    for line in lines:
        try:
            file, checksum = json.loads(line)
        except ValueError:
            continue
        if (folder / file).is_file():
            done[file] = checksum
    files.write(path, "".join(f"{line}\n" for line in [header, *map(json.dumps, done.items())]))
    return done


def _check_room(folder: Path, pictures: int, side: int) -> None:
    needed, free = pictures * side * side * BYTES_PER_PIXEL, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{folder} has {size(free)} of free space, but {pictures:,} pictures may need up to {size(needed)}. "
            "Free some space, or choose another disk with --data.prepared=FOLDER."
        )


def _write_all(folder: Path, todo: list[Part], done: dict[str, int], workers: int) -> None:
    """Write the parts, and add each complete file to `done` and to the journal. Raises RunError for damaged pictures."""
    faults: list[str] = []
    with open(folder / JOURNAL, "a") as journal:
        for part, written in each_part(write_part, folder, todo, workers, "prepare"):
            faults += written.faults
            if not written.faults:
                done[part.file] = written.checksum
                journal.write(json.dumps([part.file, written.checksum]) + "\n")
                journal.flush()
    if faults:
        more = [f"and {len(faults) - FAULTS:,} more"] if len(faults) > FAULTS else []
        raise RunError(
            "\n".join(
                (
                    "Some pictures cannot be used:",
                    *faults[:FAULTS],
                    *more,
                    "Repair or remove them. Since the data set then differs, prepare it again with --overwrite.",
                )
            )
        )


def _verify(folder: Path, parts: list[Part], done: dict[str, int], workers: int) -> None:
    """Read all files. Files that differ from what was written are deleted, so that the same command writes them again."""
    wrong = []
    for part, checksum in each_part(read_checksum, folder, parts, workers, "check"):
        if checksum != done[part.file]:
            wrong.append(part.file)
            (folder / part.file).unlink(missing_ok=True)
    if wrong:
        raise RunError(
            f"{', '.join(wrong[:5])} differed from what was written and were deleted. Check the disk. The same command writes "
            "them again."
        )


T = TypeVar("T")


def each_part(
    task: Callable[[Path, Part], T], folder: Path, parts: list[Part], workers: int, title: str
) -> Iterable[tuple[Part, T]]:
    """Yield (part, result of `task`) in the order in which worker processes finish."""
    context = multiprocessing.get_context("spawn")  # forking would copy threads in an undefined state
    executor = ProcessPoolExecutor(min(workers, len(parts) or 1), context, initialize_worker)
    with tqdm(total=sum(map(len, parts)), desc=title, unit=" images", disable=None, leave=False) as bar:
        try:
            running = {executor.submit(task, folder, part): part for part in parts}
            for future in as_completed(running):
                yield running[future], _result(future)
                bar.update(len(running[future]))
        finally:
            executor.shutdown(cancel_futures=True)


def _result(future: Future) -> Any:
    try:
        return future.result()
    except RunError:
        raise
    except Exception as problem:  # a worker was killed, the disk is full, or an error of array_record's writer
        raise RunError(
            f"Preparing failed ({type(problem).__name__}: {problem}). Check that the disk and the memory are not full. The "
            "same command resumes with the remaining files."
        ) from problem


def write_part(folder: Path, part: Part) -> Written:
    """Write the file of a part. It appears when it is complete, and only if all its pictures can be read."""
    from array_record.python.array_record_module import ArrayRecordWriter

    checksum, faults = 0, []
    with files.replacing(folder / part.file) as temporary:
        writer = ArrayRecordWriter(os.fspath(temporary), "group_size:1,uncompressed")  # JPEG cannot be compressed further
        for index in range(len(part)):
            try:
                pixels, label = part.pictures[index]
            except RunError as problem:
                faults.append(str(problem))
                continue
            record = LABEL.pack(label) + encode(pixels)
            checksum = zlib.crc32(record, checksum)
            writer.write(record)
        writer.close()
        if faults:
            temporary.unlink()
    return Written(checksum, faults)


def read_checksum(folder: Path, part: Part) -> int:
    """Return the checksum of the records of a file; -1 if it cannot be read or has another number of records."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(os.fspath(folder / part.file))
        records = reader.read_all() if reader.num_records() == len(part) else None
        reader.close()
    except Exception:  # noqa: BLE001 - array_record raises many types
        return -1
    checksum = 0
    for record in records or ():
        checksum = zlib.crc32(record, checksum)
    return checksum if records is not None else -1
