"""CIFAR-10 where there is none yet: asked of the network, or of an archive placed by hand, and prepared in a subprocess.

TensorFlow is never imported here; tfds_prepare.py does that in a process of its own.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from alexnet_jax.data import tfds_prepare
from alexnet_jax.errors import DataNotFoundError, RunError

ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
PROBE_SECONDS = 5.0
"""With the import of tensorflow-datasets (1 to 2 s) a machine without network gets its answer within ten seconds."""
PREPARE_SCRIPT = Path(tfds_prepare.__file__)


def obtain(folder: Path, log: Callable[[str], None]) -> None:
    """Download (or find the archive placed by hand) and prepare CIFAR-10 in `folder`, in a subprocess.

    Raises DataNotFoundError within ten seconds where there is neither network nor archive, or no TensorFlow.
    """
    manual = folder / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    if manual.exists():
        log(f"CIFAR-10 is prepared from {manual} in {folder}.")
    else:
        # tensorflow-datasets itself tries for 205 s before it says that there is no network.
        trouble = unreachable(ARCHIVE, PROBE_SECONDS)
        if trouble is not None:
            raise DataNotFoundError(_not_found(folder, manual, trouble))
        log(f"CIFAR-10 is downloaded (162 MiB) from {ARCHIVE} and prepared in {folder}.")
    run_prepare_script("download", folder)


def _not_found(folder: Path, manual: Path, trouble: str) -> str:
    """The message of a first start without data: what was tried, and every way out."""
    elsewhere = (
        f"python -m {tfds_prepare.__name__} download FOLDER (pip install tensorflow-datasets array_record "
        "tensorflow-cpu importlib_resources)"
    )
    place = folder / tfds_prepare.NAME
    return "\n".join(
        (
            f"CIFAR-10 is neither prepared in {folder} nor downloadable ({trouble}). Any of these helps:",
            f"- prepared elsewhere: --data.dir=FOLDER or TFDS_DATA_DIR=FOLDER, where FOLDER contains {tfds_prepare.NAME}/",
            f"- the archive {ARCHIVE}, put at {manual} (then also: pip install tensorflow-cpu importlib_resources)",
            f"- once on a machine with network: {elsewhere}, then copy FOLDER/{tfds_prepare.NAME} to {place}",
            "- other data, installed already: --data.name=digits",
        )
    )


def unreachable(url: str, seconds: float) -> str | None:
    """None if `url` answers within `seconds`, else the reason why it cannot be downloaded.

    Asks as tensorflow-datasets would (requests: the same proxies and certificates), but in a thread, because a name
    server that does not answer holds the caller for longer than any timeout.
    """
    host, outcome = urlsplit(url).hostname, []

    def ask() -> None:
        import requests

        try:
            with requests.get(url, stream=True, timeout=seconds) as response:
                outcome.append(None if response.ok else f"{host} answers {response.status_code} {response.reason}")
        except requests.exceptions.Timeout:
            outcome.append(f"{host} does not answer within {seconds:g} s")
        except (requests.exceptions.RequestException, OSError) as error:
            outcome.append(f"no connection to {host}: {type(error).__name__}")

    thread = threading.Thread(target=ask, daemon=True, name="network probe")
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"{host} does not answer within {seconds:g} s"


def run_prepare_script(*arguments: Any) -> None:
    """Run tfds_prepare.py; its progress is seen on stderr. Raises DataNotFoundError or RunError with its message."""
    # -P: the script's own folder holds modules whose names must not shadow anyone's.
    command = [sys.executable, "-P", os.fspath(PREPARE_SCRIPT), *map(os.fspath, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    message = done.stdout.strip() or "it gave no reason; see the lines above"
    if done.returncode == tfds_prepare.MISSING_PACKAGE:
        raise DataNotFoundError(message)
    if done.returncode != 0:
        raise RunError(f"Preparing CIFAR-10 failed (exit status {done.returncode}): {message}")
