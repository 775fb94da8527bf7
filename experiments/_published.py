"""Published results for the arms of the sweeps, with their sources: the paper, and the networks of the 2012 program.

Errors are top-1 / top-5 in percent, from the notes in the layer files of the original program. Each difference between
two networks is computed from their errors; a test compares it with the difference that the paper states, if any.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Net(NamedTuple):
    """A network of the original program."""

    top1: float
    top5: float
    data: str


NETS = {
    "145": Net(40.66, 18.21, "LSVRC-2012"),
    "145-2010": Net(37.47, 17.00, "LSVRC-2010"),
    "145-half": Net(39.17, 18.23, "LSVRC-2010"),
    "147": Net(41.06, 18.51, "LSVRC-2012"),
    "148": Net(42.03, 19.36, "LSVRC-2012"),
    "150": Net(41.83, 19.33, "LSVRC-2012"),
    "120": Net(41.04, 18.71, "LSVRC-2012"),
    "131": Net(40.93, 18.57, "LSVRC-2012"),
    "167": Net(40.49, 18.12, "LSVRC-2012"),
    "169": Net(40.60, 18.11, "LSVRC-2012"),
}
"""{name: errors}. Each network is compared only with the base that its author names."""


@dataclass(frozen=True)
class Difference:
    """A network of the original program, the base for its comparison, and the difference that the paper states."""

    net: str
    base: str
    paper: tuple[float, float, str] | None = None
    """Differences of the top-1 and top-5 errors in points (positive is worse), and the section that states them."""
    note: str = ""
    """Explains how this pair of networks differs from the base and the arm."""

    @property
    def measured(self) -> tuple[float, float]:
        """Differences of the top-1 and top-5 errors, in points; positive is worse."""
        net, base = NETS[self.net], NETS[self.base]
        return round(net.top1 - base.top1, 2), round(net.top5 - base.top5, 2)

    @property
    def effect(self) -> float:
        """Difference of the top-1 error in points: the paper's rounded value if it states one, otherwise `measured`."""
        return self.paper[0] if self.paper else self.measured[0]

    @property
    def text(self) -> str:
        """The text that a report prints."""
        net, base = NETS[self.net], NETS[self.base]
        stated = f"{self.paper[0]} / {self.paper[1]} points worse (section {self.paper[2]}); " if self.paper else ""
        note = f"{self.note}: " if self.note else ""
        return (
            f"{stated}{note}net {self.net} {net.top1:.2f} / {net.top5:.2f} % against net {self.base}'s {base.top1:.2f} / "
            f"{base.top5:.2f} %, {base.data}"
        )


DIFFERENCES = {
    "non_overlapping": Difference("147", "145", (0.4, 0.3, "3.4")),
    "no_lrn": Difference("148", "145", (1.4, 1.2, "3.3")),
    "one_half_column": Difference("145-half", "145-2010", (1.7, 1.2, "3.2")),
    "none_before_fc8": Difference("150", "145"),
    "tutorial_order": Difference("120", "131", note="nearest pair, LRN after pooling against LRN before it"),
    "no_conv2_lrn": Difference("167", "169", note="nearest pair"),
}
"""{arm: difference}."""

STATED = {
    "colour": (-1.0, "over 1 point of top-1 error better (section 4.1)"),
    "without_a_layer": (2.0, "about 2 points of top-1 error for any one of the middle layers (section 7), LSVRC-2010"),
}
"""{arm: (points of top-1 error, text)}: statements of the paper without a matching network of the original program."""


def published(arm: str) -> tuple[str, float]:
    """Return (text that a report prints, points of top-1 error), the last two arguments of an `Arm`."""
    if arm in DIFFERENCES:
        return DIFFERENCES[arm].text, DIFFERENCES[arm].effect
    effect, text = STATED[arm]
    return text, effect
