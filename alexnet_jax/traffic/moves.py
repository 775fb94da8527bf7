"""The collectives of a training step and the bytes that each device sends in them. This module does not import jax.

Bytes that each of n devices sends with the ring algorithms of collective libraries:

    all_gather      S bytes after gathering         (n - 1) / n S, that is n - 1 times the device's shard
    reduce_scatter  S bytes on each device          (n - 1) / n S
    psum            S bytes on each device          2 (n - 1) / n S: a reduce-scatter, then an all-gather
    all_to_all      S bytes on each device          (n - 1) / n S
    ppermute        S bytes from each sender        S times the share of devices that send

Each device receives as many bytes as it sends.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["forward", "backward"]
Kind = Literal["all_gather", "reduce_scatter", "psum", "all_to_all", "ppermute"]


@dataclass(frozen=True)
class Move:
    """One collective operation of one training step."""

    layer: str
    direction: Direction
    kind: Kind
    size: int
    """Bytes of the gathered array for an all_gather, otherwise of one device's operand."""
    devices: int
    """Number of participating devices: the size of the mesh axis or axes."""
    pairs: int = 0
    """Number of sending devices in a ppermute."""
    update: bool = field(default=False, compare=False)
    """Whether the collective sums gradients of parameters; only the update needs its result."""

    @property
    def sent(self) -> float:
        """Bytes that each device sends; for a ppermute the mean over devices, since devices at the ends have one neighbour."""
        if self.kind == "ppermute":
            return self.size * self.pairs / self.devices
        rounds = 2 if self.kind == "psum" else 1
        return rounds * (self.devices - 1) * self.size / self.devices


def sent(moves: Iterable[Move], layer: str | None = None, direction: Direction | None = None) -> float:
    """Return the bytes that each device sends, in all layers and directions or in the given ones."""
    return sum(m.sent for m in moves if layer in (None, m.layer) and direction in (None, m.direction))
