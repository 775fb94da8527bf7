"""One program in a process of its own: `python -m benchmarks.worker PROGRAM SIZE BATCH PRECISION`, driven by rivals.py.

Each line on standard input is a question, each line of the answer JSON: {"name", "times"} has something timed, {"name":
"memory"} and {"name": "shares"} ask for what their answers are called.
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
from benchmarks.sizes import Job

Timed = dict[str, Callable[[], Any]]
"""{name: a function that starts something and gives what to wait for}"""


def ours(job: Job, program: str) -> tuple[Timed, Callable[[Any], None], str]:
    """What of jax's can be timed, how to wait for it, and the name of the device."""
    import jax

    if "on_two" in program:
        jax.config.update("jax_num_cpu_devices", 2)
    from benchmarks import ours

    make: dict[str, Callable[[], Timed]] = {
        "ours": lambda: {"step": ours.TrainingStep(job)},
        "ours_columns_on_two": lambda: {"step": ours.TrainingStep(job, column=2)},
        "ours_batch_on_two": lambda: {"step": ours.TrainingStep(job, data=2)},
        "plain": lambda: {"step": ours.PlainStep(job)},
        "product": lambda: {"step": ours.Product(job)},
        "parts": lambda: ours.parts(job),
    }
    return make[program](), ours.wait, jax.devices()[0].device_kind


def pytorch(job: Job, program: str) -> tuple[Timed, Callable[[Any], None], str]:
    """The same of PyTorch's."""
    from benchmarks import pytorch

    last = program not in ("pytorch", "pytorch_parts")  # torch.compile is given what is usually the faster layout
    if "parts" in program:
        return pytorch.parts(job.table, job.batch, job.precision, channels_last=last), pytorch.wait, pytorch.DEVICE_NAME
    compiled = program == "pytorch_compile"
    step = pytorch.training_step(job.table, job.batch, job.precision, channels_last=last, compiled=compiled)
    return {"step": step}, pytorch.wait, pytorch.DEVICE_NAME


def main(program: str, size: str, batch: str, precision: str) -> None:
    """Build, say {"names", "device"}, and answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    tell = lambda **values: print(json.dumps(values), file=answers, flush=True)  # noqa: E731
    if program != "plain":  # plain jax has what it is given; the others are set alike
        keep_memory()
    build = pytorch if program.startswith("pytorch") else ours
    timed, wait, device = build(Job(size, int(batch), precision), program)
    for function in timed.values():
        wait(function())
        wait(function())
    operations = getattr(timed.get("step"), "operations", None)
    tell(names=list(timed), device=device, operations=operations)
    for line in sys.stdin:
        question = json.loads(line)
        match question["name"]:
            case "memory":
                tell(memory=peak_memory())
            case "shares":
                tell(shares=timed["step"].shares())  # type: ignore[attr-defined] - only the step of ours is asked
            case name:
                start = time.perf_counter()
                for _ in range(question["times"]):
                    result = timed[name]()
                wait(result)
                tell(ms=1000 * (time.perf_counter() - start) / question["times"])


def peak_memory() -> int:
    """The largest resident memory this process had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # where getrusage would tell that of the process that started this one, if it is larger
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
