"""The duration of a training step, predicted from one rate of computation and one rate of communication.

    compute        operations of the device with the most / its rate
    communication  bytes that a device sends / the rate of its link in one direction; it receives as many meanwhile
    step           computation, then communication: no overlap
    at best        the longer of the two: complete overlap

The model leaves out latency, pooling, normalization, the update and the input pipeline, and uses one rate for all layers.
Real steps therefore take longer, and communication is a smaller share of them.
"""

from dataclasses import dataclass
from typing import Literal

from alexnet_jax.network.table import Table
from alexnet_jax.traffic.moves import sent
from alexnet_jax.traffic.predicted import Partition, moves, work


@dataclass(frozen=True)
class Machine:
    """A device and its link to other devices."""

    compute: float
    """Multiplications and additions per second of one device."""
    link: float
    """Bytes per second that a device can send while it receives as many."""


@dataclass(frozen=True)
class Times:
    """The parts of one step, in seconds."""

    compute: float
    communication: float
    ideal: float
    """The duration with the operations divided evenly and without communication."""

    @property
    def step(self) -> float:
        """The duration without overlap."""
        return self.compute + self.communication

    @property
    def at_best(self) -> float:
        """The duration with complete overlap of computation and communication."""
        return max(self.compute, self.communication)

    @property
    def efficiency(self) -> float:
        """The speed-up divided by the number of devices, without overlap."""
        return self.ideal / self.step


def times(table: Table, partition: Partition, batch: int, machine: Machine, precision: str = "float32") -> Times:
    """Return the times of one step on `batch` images, counted over all devices."""
    compute = sum(layer.operations for layer in work(table, partition, batch)) / machine.compute
    alone = sum(layer.operations for layer in work(table, Partition("columns"), batch)) / machine.compute
    communication = sent(moves(table, partition, batch, precision)) / machine.link
    return Times(compute, communication, alone / partition.devices)


Scheme = Literal["a", "b", "c"]


def hybrid_step(table: Table, devices: int, batch: int, machine: Machine, scheme: Scheme) -> float:
    """Return the seconds of a step under scheme a, b or c of "One weird trick" for the first fully connected layer.

    (a) All devices send their images, then compute. (b) One device sends its images in each of `devices` rounds. (c) Every
    device sends a slice of its images in each round. Under (b) and (c) the fully connected layers compute on the images of one
    round during the transfer of the next. The rest of the step is the same.
    """
    partition = Partition("hybrid", devices)
    total = times(table, partition, batch, machine)
    layers = work(table, partition, batch)
    first = next(layer.layer for layer in layers if layer.fully_connected)
    gathering = sent(moves(table, partition, batch), first) / machine.link
    computing = sum(layer.operations for layer in layers if layer.fully_connected) / machine.compute
    if scheme == "a":
        return total.step
    sending = gathering * (devices if scheme == "b" else 1)
    waiting = sending / devices + (devices - 1) / devices * max(0.0, sending - computing)
    return total.step - gathering + waiting


def implied_link(compute: float, sent: float, devices: int, speedup: float) -> float:
    """Return the bytes per second of the link that explains a speed-up without overlap.

    compute: seconds of computation per step. sent: bytes that each device sends per step.
    """
    return sent / (compute * (devices / speedup - 1))
