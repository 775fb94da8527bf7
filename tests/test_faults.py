"""Run the fault benchmark with a few kills of each kind."""

import re

import pytest

from benchmarks import faults


@pytest.mark.evidence
def test_nothing_is_lost(capsys):
    assert faults.main(faults.Options(kills=7, flips=100, seed=5))
    shown = capsys.readouterr().out
    assert len(re.findall(r"\| (training|saving|preparing|sweep) \| [12] \|", shown)) == 4
    assert re.search(r"\| 100 \| \d+ \| \d+ \| 0 \| 0 \|", shown)
