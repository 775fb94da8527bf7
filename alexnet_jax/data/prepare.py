"""`--mode=prepare`: every picture decoded once, cut to a square, and stored as JPEG; resumable, checked at the end."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax import files
from alexnet_jax.data import loader, prepared, source
from alexnet_jax.data.images import encode
from alexnet_jax.data.prepared import MANIFEST, SPLITS
from alexnet_jax.data.records import LABEL
from alexnet_jax.data.split import DataSet, Stream
from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.experiment import Data
from alexnet_jax.formatting import size
from alexnet_jax.modes import Request
from alexnet_jax.processes.workers import initialize_worker
from alexnet_jax.run.workdir import Workdir

JOURNAL = "parts.jsonl"
"""One line for each part that is done; the first says what is prepared here."""

BYTES = 0.5
"""Of a JPEG of quality 95, for each pixel, at most: for the question whether there is room."""

FAULTS = 20
"""So many damaged pictures are named."""


@dataclass(frozen=True)
class Part:
    """Some pictures of a split that one file will hold."""

    split: str
    file: str
    stream: Stream

    def __len__(self) -> int:
        return len(self.stream)


def run(request: Request) -> None:
    """Prepare the data of an experiment. The same command goes on where it was stopped; finished, it says so.

    Raises UsageError for data that is in memory as a whole, or a folder that holds something else; RunError naming pictures
    that cannot be read, or files that read back otherwise than they were written.
    """
    data = request.experiment.data
    if data.name not in ("imagenet2012", "folder"):
        raise UsageError(
            f"--mode=prepare: {data.name} is kept in memory as a whole; only imagenet2012 and folder are prepared."
        )
    if data.prepared == prepared.NONE:
        raise UsageError("--mode=prepare --data.prepared=none: expected a folder to write to, or neither.")
    found = source.find(data)
    folder = Path(data.prepared).expanduser() if data.prepared is not None else prepared.default_folder(data, found)
    prepare(found, folder.absolute(), data, data.workers or loader.cores(), overwrite=request.overwrite)


def prepare(found: source.Source, folder: Path, data: Data, workers: int, *, overwrite: bool = False) -> None:
    """Prepare the pictures of a source in `folder`, by so many worker processes. Raises as `run`.

    overwrite: drop what was prepared there before, of whatever set.
    """
    identity, every = prepared.describe(data, found), found.data_set(data.side)
    with Workdir(folder, "--data.prepared").locked():
        if overwrite and any((folder / name).exists() for name in (JOURNAL, MANIFEST)):
            _clear(folder)
        there = prepared.whole(folder, identity)
        if there is not None:
            print(f"{prepared.read(there, data).title} is there: {folder}")
            return
        done, parts = _journal(folder, identity), list(_parts(every))
        todo = [part for part in parts if part.file not in done]
        _check_room(folder, sum(map(len, todo)), data.side)
        print(f"{found.title}: {len(parts) - len(todo)} of {len(parts)} files are done; writing to {folder}")
        _write_all(folder, todo, done, workers)
        _verify(folder, parts, done, workers)
        files = {split: [[p.file, len(p), done[p.file]] for p in parts if p.split == split] for split in SPLITS}
        Workdir(folder).write(MANIFEST, identity | {"files": files})
    size = sum((folder / part.file).stat().st_size for part in parts)
    print(
        f"{sum(map(len, parts)):,} pictures of {data.side}x{data.side}, {size / 1e6:,.1f} MB, read back and right: {folder}"
    )


def _clear(folder: Path) -> None:
    """Delete what a preparation wrote, and nothing else."""
    records = (path for split in SPLITS for path in folder.glob(f"{split}.array_record-*"))
    for path in (folder / MANIFEST, folder / JOURNAL, *records):
        path.unlink(missing_ok=True)


def _parts(whole: DataSet) -> Iterable[Part]:
    for split, stream in zip(SPLITS, (whole.train, whole.test), strict=True):
        assert isinstance(stream, Stream)
        pieces = stream.records.parts()
        for number, records in enumerate(pieces):
            file = f"{split}.array_record-{number:05d}-of-{len(pieces):05d}"
            yield Part(split, file, dataclasses.replace(stream, records=records, indices=np.arange(len(records))))


def _journal(folder: Path, identity: dict[str, Any]) -> dict[str, int]:
    """{file: checksum} of what earlier starts wrote; a line that was cut off when the process died does not count."""
    path, header = folder / JOURNAL, json.dumps(identity)
    if not path.exists():
        others = [one.name for one in folder.iterdir() if one.name != ".lock"]
        if others:
            raise UsageError(
                f"{folder} holds {', '.join(sorted(others)[:5])}; nothing was touched. Choose an empty --data.prepared."
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
    needed, free = pictures * side * side * BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{folder} has {size(free)} free, but {pictures:,} pictures may take up to {size(needed)}. "
            "Make room, or choose another disk with --data.prepared=FOLDER."
        )


def _write_all(folder: Path, todo: list[Part], done: dict[str, int], workers: int) -> None:
    faults: list[str] = []
    with open(folder / JOURNAL, "a") as journal:
        for part, (checksum, found) in _each(_write, folder, todo, workers, "prepare"):
            faults += found
            if not found:
                done[part.file] = checksum
                journal.write(json.dumps([part.file, checksum]) + "\n")
                journal.flush()
    if faults:
        more = f"\nand {len(faults) - FAULTS:,} more" if len(faults) > FAULTS else ""
        raise RunError(
            "Some pictures cannot be used:\n"
            + "\n".join(faults[:FAULTS])
            + more
            + "\nRepair or remove these. Then the set is another: the same command with --overwrite prepares it anew."
        )


def _verify(folder: Path, parts: list[Part], done: dict[str, int], workers: int) -> None:
    """Read everything back. A file that differs is dropped, so that the same command makes it again."""
    wrong = []
    for part, checksum in _each(_checksum, folder, parts, workers, "check"):
        if checksum != done[part.file]:
            wrong.append(part.file)
            (folder / part.file).unlink(missing_ok=True)
    if wrong:
        raise RunError(
            f"{', '.join(wrong[:5])} in {folder} read back otherwise than written and were deleted. Is the disk sound? "
            "The same command makes them again."
        )


def _each(task: Any, folder: Path, parts: list[Part], workers: int, title: str) -> Iterable[tuple[Part, Any]]:
    """(part, what `task` makes of it) in the order in which worker processes finish."""
    context = multiprocessing.get_context("spawn")  # no thread of this process is copied half-way
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
    except Exception as problem:  # a worker was killed, the disk is full, or what array_record's writer raises
        raise RunError(
            f"Preparing failed ({type(problem).__name__}: {problem}). Is the disk full, or memory short? The same command goes "
            "on with what is left."
        ) from problem


def _write(folder: Path, part: Part) -> tuple[int, list[str]]:
    """(checksum, faults); the file appears when it is complete and without fault."""
    from array_record.python.array_record_module import ArrayRecordWriter

    checksum, faults = 0, []
    with files.replacing(folder / part.file) as temporary:
        writer = ArrayRecordWriter(os.fspath(temporary), "group_size:1,uncompressed")  # JPEG does not shrink further
        for index in range(len(part)):
            try:
                pixels, label = part.stream[index]
            except RunError as problem:
                faults.append(str(problem))
                continue
            record = LABEL.pack(label) + encode(pixels)
            checksum = zlib.crc32(record, checksum)
            writer.write(record)
        writer.close()
        if faults:
            temporary.unlink()
    return checksum, faults


def _checksum(folder: Path, part: Part) -> int:
    """Of all records of a file; -1 where it cannot be read or has another number of them."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(os.fspath(folder / part.file))
        records = reader.read_all() if reader.num_records() == len(part) else None
        reader.close()
    except Exception:  # noqa: BLE001 - array_record raises of many types
        return -1
    checksum = 0
    for record in records or ():
        checksum = zlib.crc32(record, checksum)
    return checksum if records is not None else -1
