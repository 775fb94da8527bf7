"""Check that docs/traffic.md is up to date, and that its predictions equal those computed by hand."""

from pathlib import Path

import pytest

from alexnet_jax.network import networks
from alexnet_jax.network.table import operation_count
from alexnet_jax.traffic.predicted import Partition
from alexnet_jax.traffic.times import Machine, Times, hybrid_step, implied_link, times
from docs import draw_traffic as published

ROOT = Path(__file__).parents[2]


def test_the_document_is_up_to_date(tmp_path):
    published.main(tmp_path / "traffic.md")
    assert (tmp_path / "traffic.md").read_text() == (ROOT / "docs/traffic.md").read_text()
    assert (tmp_path / "traffic.png").read_bytes().startswith(b"\x89PNG")


def test_the_two_gpu_net_is_slightly_faster():
    """A step has three times the forward operations, except the gradient of the images, and sends 29.5 MB at 6 GB/s."""
    two, one = networks.ALEXNET, networks.ALEXNET_ONE_COLUMN
    steps = []
    for table, gpus, megabytes in ((two, 2, 29.478912), (one, 1, 0)):
        operations = 3 * operation_count(table) - operation_count(table.until("conv1"))
        steps.append(128 * operations / gpus / 1.58e12 + megabytes / 6e3)
    found = times(two, Partition("columns", 1, 2), 128, published.GTX_580)
    assert found.step == pytest.approx(steps[0]) and 0.9 < steps[0] / steps[1] < 1


def test_speed_ups_at_two_four_and_eight_gpus():
    predicted = {n: n * published.scaling(n).efficiency for n in published.SPEEDUPS}
    assert predicted == pytest.approx({2: 1.977, 4: 3.895, 8: 7.596}, abs=1e-3)
    hours = published.scaling(1).step * published.IMAGES_2014 * 90 / 128 / 3600
    assert hours == pytest.approx(published.HOURS_ONE_K20)


def test_times_of_a_step():
    spent = Times(compute=3.0, communication=1.0, ideal=2.0)
    assert (spent.step, spent.at_best, spent.efficiency) == (4.0, 3.0, 0.5)
    link = implied_link(3.0, sent=12.0, devices=4, speedup=3.0)
    assert 12.0 / link + 3.0 == pytest.approx(3.0 * 4 / 3.0)


@pytest.mark.parametrize("link", [1e6, 6e9, 1e15])
def test_schemes_overlap_computation_and_communication(link):
    """Scheme (c) is never slower than (a) or (b), and on fast links hides all but one slice."""
    machine, table, n = Machine(1.6e12, link), networks.ALEXNET_MERGED, 8
    a, b, c = (hybrid_step(table, n, 1024, machine, scheme) for scheme in ("a", "b", "c"))
    gathering = 2 * 7 / 8 * 9216 * 1024 * 4 / link
    assert c <= a <= c + 7 / 8 * gathering * (1 + 1e-9)
    assert c <= b
    if link == 1e15:
        assert a - c == pytest.approx(7 / 8 * gathering)
