"""A collective of a training step, and how many bytes each device sends in it. No jax here: paper is enough.

What a device sends with the ring algorithms that collective libraries use, over n devices:

    all_gather      of shards that make up a whole of S bytes   (n - 1) / n S, which is n - 1 times its shard
    reduce_scatter  of a whole of S bytes                       (n - 1) / n S
    psum            (all-reduce) of S bytes                     2 (n - 1) / n S, the two above one after the other
    all_to_all      of S bytes on each device                   (n - 1) / n S
    ppermute        of S bytes from each sender                 S, or S times the share of the devices that send

As many bytes arrive at each device as leave it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["forward", "backward"]
Kind = Literal["all_gather", "reduce_scatter", "psum", "all_to_all", "ppermute"]


@dataclass(frozen=True)
class Move:
    """One collective operation of one step, as each of the `devices` that take part in it sees it."""

    layer: str
    direction: Direction
    kind: Kind
    whole: int
    """Bytes: of what is gathered; of what one device adds to a sum, deals out, or passes on."""
    devices: int
    """How many take part: a row or a column of the mesh."""
    pairs: int = 0
    """Of a ppermute: how many of them send."""
    update: bool = field(default=False, compare=False)
    """Whether it adds up the gradients of parameters: needed before the update, and by no other layer."""

    @property
    def sent(self) -> float:
        """Bytes that each device sends; in a ppermute on average, since those at the ends of a row have one neighbour."""
        if self.kind == "ppermute":
            return self.whole * self.pairs / self.devices
        rounds = 2 if self.kind == "psum" else 1
        return rounds * (self.devices - 1) * self.whole / self.devices


def sent(moves: Iterable[Move], layer: str | None = None, direction: Direction | None = None) -> float:
    """Bytes that each device sends: of one layer and direction, or of all."""
    return sum(m.sent for m in moves if layer in (None, m.layer) and direction in (None, m.direction))
