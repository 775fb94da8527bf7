"""Download and prepare CIFAR-10 if it is missing, from the network or from an archive that the user placed.

TensorFlow is imported only by tfds_prepare.py, which runs in a subprocess.
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
"""Short enough that a machine without network reports it within ten seconds; tensorflow-datasets itself takes 205 s."""
PREPARE_SCRIPT = Path(tfds_prepare.__file__)


def obtain(folder: Path, log: Callable[[str], None]) -> None:
    """Prepare CIFAR-10 in `folder` in a subprocess, from an archive placed there or downloaded.

    Raises DataNotFoundError, within ten seconds, if there is neither network nor archive, or no TensorFlow, and
    RunError if the preparation fails.
    """
    manual = folder / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    if manual.exists():
        log(f"Preparing CIFAR-10 in {folder} from {manual}.")
    else:
        trouble = unreachable(ARCHIVE, PROBE_SECONDS)
        if trouble is not None:
            raise DataNotFoundError(_not_found(folder, manual, trouble))
        log(f"Downloading CIFAR-10 (162 MiB) from {ARCHIVE} and preparing it in {folder}.")
    run_prepare_script("download", folder)


def _not_found(folder: Path, manual: Path, trouble: str) -> str:
    """Return the message of a first start without data, which lists every remedy."""
    command = (
        f"python -m {tfds_prepare.__name__} download FOLDER (pip install tensorflow-datasets array_record "
        "tensorflow-cpu importlib_resources)"
    )
    return "\n".join(
        (
            f"CIFAR-10 is not prepared in {folder} and cannot be downloaded ({trouble}). Do one of the following:",
            f"- use a prepared copy: --data.dir=FOLDER or TFDS_DATA_DIR=FOLDER, where FOLDER contains {tfds_prepare.NAME}/",
            f"- copy the archive {ARCHIVE} to {manual} (this also needs: pip install tensorflow-cpu importlib_resources)",
            f"- on a machine with network, run {command}, then copy FOLDER/{tfds_prepare.NAME} to {folder / tfds_prepare.NAME}",
            "- use data that is already installed: --data.name=digits",
        )
    )


def unreachable(url: str, seconds: float) -> str | None:
    """Return None if `url` answers within `seconds`, else the reason why it cannot be downloaded.

    Uses requests, as tensorflow-datasets does (the same proxies and certificates), but in a thread, because a name
    server that does not answer blocks the caller for longer than any timeout.
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
    """Run tfds_prepare.py, whose progress goes to stderr. Raises DataNotFoundError or RunError with its message."""
    # -P keeps the script's folder out of sys.path, where its modules would shadow others of the same names.
    command = [sys.executable, "-P", os.fspath(PREPARE_SCRIPT), *map(os.fspath, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    message = done.stdout.strip() or "it printed no reason; see the lines above"
    if done.returncode == tfds_prepare.MISSING_PACKAGE:
        raise DataNotFoundError(message)
    if done.returncode != 0:
        raise RunError(f"Preparing CIFAR-10 failed (exit status {done.returncode}): {message}")
