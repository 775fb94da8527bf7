"""Check that values outside the limits of each option are rejected."""

import re

import pytest

pytest_plugins = ["commands"]
pytestmark = pytest.mark.usefixtures("empty_folder")


OUT_OF_RANGE = [
    ("network.width", "0", "positive"),
    ("network.width", "inf", "positive"),
    ("network.width", "nan", "positive"),
    ("network.fc_units", "0", "positive multiple of network.columns"),
    ("network.fc_units", "33", "positive multiple of network.columns"),
    ("network.dropout", "1", "below 1"),
    ("network.dropout", "-0.1", "at least 0"),
    ("data.validation", "0", "at least 1"),
    ("data.crop_padding", "-1", "0 or more"),
    ("optim.learning_rate", "0", "positive"),
    ("optim.learning_rate", "inf", "positive"),
    ("optim.bias_learning_rate", "-1", "positive"),
    ("optim.momentum", "1", "below 1"),
    ("optim.momentum", "-0.5", "at least 0"),
    ("optim.weight_decay", "-0.1", "0 or more"),
    ("optim.weight_decay", "nan", "0 or more"),
    ("optim.warmup", "-1", "at least 0"),
    ("optim.warmup", "1000", "below train.epochs"),
    ("optim.drop_factor", "0", "above 0"),
    ("optim.drop_factor", "1.5", "at most 1"),
    ("train.epochs", "0", "positive"),
    ("train.epochs", "-1", "positive"),
    ("train.epochs", "nan", "positive"),
    ("train.epochs", "inf", "positive"),
    ("train.batch", "0", "1 or more"),
    ("train.eval_batch", "0", "1 or more"),
    ("train.log_every", "0", "1 or more"),
    ("train.keep", "0", "1 or more"),
    ("train.save_every", "-1", "0 or more"),
    ("train.seed", "-1", "0 or more"),
    ("train.seed", str(2**32), "below 2**32"),
    ("mesh.data", "0", "1 or more"),
    ("mesh.column", "0", "1 or more"),
    ("mesh.column", "3", "1 or 2, the columns"),
]


@pytest.mark.parametrize(("option", "value", "expected"), OUT_OF_RANGE, ids=lambda text: text)
def test_value_out_of_range(refused, option, value, expected):
    message = refused("--exp=alexnet_digits", f"--{option}={value}")
    assert re.search(rf"^Error: --{option}={value}(\.0)?: expected ", message) and expected in message


@pytest.mark.parametrize("options", [("3", "2"), ("0", "2"), ("-1",)], ids=" ".join)
def test_drops_must_rise(refused, options):
    message = refused("--exp=alexnet_digits", "--optim.schedule=drops", "--optim.drops", *options)
    assert "--optim.drops=(" in message and "rising epochs above 0" in message


def test_drops_need_their_schedule(refused):
    message = refused("--exp=alexnet_digits", "--optim.schedule=linear", "--optim.drops", "3")
    assert "--optim.drops=(3.0,)" in message and "optim.schedule=linear" in message


def test_one_column_network_in_two_columns(refused):
    message = refused("--exp=lenet5_cifar", "--network.columns=2")
    assert "--network.columns=2: expected 1 for lenet5" in message
