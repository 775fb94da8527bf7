"""A measured program: `python -m benchmarks.worker PROGRAM SIZE BATCH PRECISION`, started by rivals.py.

Each line on standard input is a request in JSON, and each line on standard output is its response. {"name", "times"} measures
calls and returns {"ms"}, {"name": "memory"} returns {"memory"}, and {"name": "shares"} returns {"shares"}.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_jax.processes.allocator import keep_memory
from benchmarks.sizes import Job, product_rows

Timed = dict[str, Callable[[], Any]]
"""{name: function that dispatches a computation and returns its result}."""


def ours(job: Job, program: str) -> tuple[Timed, Callable[[Any], None], str]:
    """Return the functions of a jax program, a function that waits for a result, and the name of the device."""
    import jax

    if "on_two" in program:
        jax.config.update("jax_num_cpu_devices", 2)
    from benchmarks import ours

    make: dict[str, Callable[[], Timed]] = {
        "ours": lambda: {"step": ours.TrainingStep(job)},
        "ours_columns_on_two": lambda: {"step": ours.TrainingStep(job, column=2)},
        "ours_batch_on_two": lambda: {"step": ours.TrainingStep(job, data=2)},
        "plain": lambda: {"step": ours.PlainStep(job)},
        "product": lambda: {"step": ours.Product(job), "copy": ours.Copy()},
        "parts": lambda: ours.parts(job),
    }
    return make[program](), ours.wait, jax.devices()[0].device_kind


def pytorch(job: Job, program: str) -> tuple[Timed, Callable[[Any], None], str]:
    """Return the same for a PyTorch program."""
    from benchmarks import pytorch

    if program == "pytorch_product":
        rows = product_rows(pytorch.DEVICE.type)
        return {"step": pytorch.product(rows, job.precision)}, pytorch.wait, pytorch.DEVICE_NAME
    last = program not in ("pytorch", "pytorch_parts")  # torch.compile gets the layout that is usually faster
    if "parts" in program:
        return pytorch.parts(job.table, job.batch, job.precision, channels_last=last), pytorch.wait, pytorch.DEVICE_NAME
    compiled = program == "pytorch_compile"
    step = pytorch.training_step(job.table, job.batch, job.precision, channels_last=last, compiled=compiled)
    return {"step": step}, pytorch.wait, pytorch.DEVICE_NAME


def main(program: str, size: str, batch: str, precision: str) -> None:
    """Build the program, report its names and device, and respond to requests until the input ends."""
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with responses
    respond = lambda **values: print(json.dumps(values), file=responses, flush=True)  # noqa: E731
    if program != "plain":  # plain jax keeps the default allocator
        keep_memory()
    build = pytorch if program.startswith("pytorch") else ours
    timed, wait, device = build(Job(size, int(batch), precision), program)
    for function in timed.values():
        wait(function())
        wait(function())
    operations = getattr(timed.get("step"), "operations", None)
    respond(names=list(timed), device=device, operations=operations)
    for line in sys.stdin:
        request = json.loads(line)
        match request["name"]:
            case "memory":
                respond(memory=peak_memory())
            case "shares":
                respond(shares=timed["step"].shares())  # type: ignore[attr-defined] - only requested from `ours`
            case name:
                start = time.perf_counter()
                for _ in range(request["times"]):
                    result = timed[name]()
                wait(result)
                respond(ms=1000 * (time.perf_counter() - start) / request["times"])


def peak_memory() -> int:
    """Return the peak resident memory of this process, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage may report the peak of the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
