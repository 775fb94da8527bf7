"""How long a step takes where devices compute at one rate and links carry at another; the simplest model there is.

    compute        operations of the busiest device / its rate
    communication  bytes that a device sends / the rate of its link in one direction (as many arrive meanwhile)
    step           the two one after the other: no layer starts before its inputs are there, nothing is sent beforehand
    at best        the longer of the two: everything that is sent is hidden behind what is computed

Latency, pooling, normalization, the update and the input are left out, and the rate of computation is the same for every
layer: what an efficiency leaves out of them makes both times too short, and the step's share of communication too large.
"""

from dataclasses import dataclass
from typing import Literal

from alexnet_jax.network.table import Table
from alexnet_jax.traffic.moves import sent
from alexnet_jax.traffic.predicted import Partition, moves, work


@dataclass(frozen=True)
class Machine:
    """Devices and what joins them."""

    compute: float
    """Operations a second of one device: multiplications and additions."""
    link: float
    """Bytes a second that a device can send while it receives as many."""


@dataclass(frozen=True)
class Times:
    """Seconds of one step, and how well all devices are used in it."""

    compute: float
    communication: float
    ideal: float
    """What the step would take if all operations were shared out evenly and nothing had to be sent."""

    @property
    def step(self) -> float:
        """Computation and communication one after the other."""
        return self.compute + self.communication

    @property
    def at_best(self) -> float:
        """All communication hidden behind computation, as far as it is not longer."""
        return max(self.compute, self.communication)

    @property
    def efficiency(self) -> float:
        """Share of the devices' time that goes into the step's operations, nothing hidden; the speed-up over their number."""
        return self.ideal / self.step


def times(table: Table, partition: Partition, batch: int, machine: Machine, precision: str = "float32") -> Times:
    """Of one step on `batch` images over all devices."""
    compute = sum(layer.operations for layer in work(table, partition, batch)) / machine.compute
    alone = sum(layer.operations for layer in work(table, Partition("columns"), batch)) / machine.compute
    communication = sent(moves(table, partition, batch, precision)) / machine.link
    return Times(compute, communication, alone / partition.devices)


Scheme = Literal["a", "b", "c"]


def hybrid_step(table: Table, devices: int, batch: int, machine: Machine, scheme: Scheme) -> float:
    """Seconds of a step under one of the three schemes of "One weird trick" for its first fully connected layer.

    a: all devices send each other their images, then compute. b: they take turns, so that only one link is at work, for as
    many rounds as there are devices. c: each sends a slice in every round. Under b and c the fully connected layers compute
    on one round's images while the next ones are on their way; the rest of the step is the same.
    """
    partition = Partition("hybrid", devices)
    whole = times(table, partition, batch, machine)
    layers = work(table, partition, batch)
    first = next(layer.layer for layer in layers if layer.fully_connected)
    gathering = sent(moves(table, partition, batch), first) / machine.link
    computing = sum(layer.operations for layer in layers if layer.fully_connected) / machine.compute
    if scheme == "a":
        return whole.step
    sending = gathering * (devices if scheme == "b" else 1)
    waiting = sending / devices + (devices - 1) / devices * max(0.0, sending - computing)
    return whole.step - gathering + waiting


def implied_link(compute: float, sent: float, devices: int, speedup: float) -> float:
    """Bytes a second of a link with which a step of so many seconds and bytes would have this speed-up, nothing hidden."""
    return sent / (compute * (devices / speedup - 1))
