"""Check the text of durations, sizes, percentages and tables."""

import pytest

from alexnet_jax import formatting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not known"), (0, "0.0 s"), (119.94, "119.9 s"), (120, "2.0 min"), (7199, "120.0 min"), (7650, "2 h 8 min")],
)
def test_a_duration_has_the_unit_that_fits(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(89, "89 seconds"), (90, "2 minutes"), (3420, "57 minutes"), (5400, "1.5 hours"), (48 * 3600, "2.0 days")],
)
def test_an_estimate_is_in_words(seconds, text):
    assert formatting.estimated_duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03")])
def test_a_countdown_looks_like_a_clock(seconds, text):
    assert formatting.countdown(seconds) == text


def test_sizes_and_shares_name_their_unit():
    assert [formatting.size(number) for number in (2**20, 2**29, 3 * 2**40)] == ["1.0 MiB", "0.5 GiB", "3,072.0 GiB"]
    assert [formatting.megabytes(1.5e9), formatting.megabytes(0), formatting.megabytes(0, 2, "0")] == ["1,500.000", "-", "0"]
    assert [formatting.percent(0.1194), formatting.percent(1, 0), formatting.percent(None)] == ["11.94 %", "100 %", "not known"]


def test_cells_cannot_break_a_markdown_table():
    table = formatting.markdown_table(("a", "b"), [("x | y", "1\n2")], right=(1,))
    assert table == "| a | b |\n| --- | ---: |\n| x \\| y | 1 2 |"


def test_columns_of_text_are_aligned():
    assert formatting.text_table([("a", "b"), ("long", "10")], right=(1,)) == "a      b\nlong  10"
    assert formatting.text_table([("a", "b"), ("long", "10")]) == "a     b\nlong  10"
