"""Check experiments as JSON, and which experiments may resume which runs."""

import dataclasses
import json
import typing

import pytest

from alexnet_jax.data.registry import DATA_SETS
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import (
    DIGITS,
    MAY_DIFFER,
    Data,
    Experiment,
    MeshOptions,
    Network,
    Optim,
    Train,
    differences,
    flatten,
    from_json,
    to_json,
)

DROPS = Experiment("e", data=DIGITS, optim=Optim(drops=(3.0, 5.5)), train=Train(epochs=8), mesh=MeshOptions(data=2))


def changed(section, **fields):
    return dataclasses.replace(DROPS, **{section: dataclasses.replace(getattr(DROPS, section), **fields)})


def test_json_keeps_every_field():
    written = json.loads(json.dumps(to_json(DROPS)))
    assert from_json(written) == DROPS
    assert isinstance(from_json(written).optim.drops, tuple)


@pytest.mark.parametrize(("section", "field"), [("network", "depth"), ("optim", "nesterov"), ("mesh", "model")])
def test_unknown_field_is_refused(section, field):
    written = to_json(DROPS)
    written[section][field] = 1
    with pytest.raises(UsageError, match=f"{section}.*{field}"):
        from_json(written)


@pytest.mark.parametrize("section", ["network", "data", "optim", "train", "mesh"])
def test_missing_or_damaged_section_is_refused(section):
    written = to_json(DROPS)
    with pytest.raises(UsageError, match=section):
        from_json({k: v for k, v in written.items() if k != section})
    with pytest.raises(UsageError, match=section):
        from_json(written | {section: 3})


def test_missing_name_is_refused():
    with pytest.raises(UsageError, match="name"):
        from_json({})


def test_flat_names_are_those_of_the_command_line():
    flat = flatten(DROPS)
    assert flat["optim.drops"] == [3.0, 5.5]
    assert flat["mesh.data"] == 2
    assert set(flat) >= MAY_DIFFER


@pytest.mark.parametrize("name", sorted(set(flatten(DROPS)) - MAY_DIFFER - {"train.epochs"}))
def test_fields_of_the_mathematics_must_agree(name):
    section, field = name.split(".")
    other = changed(section, **{field: "another"})
    assert list(differences(DROPS, other)) == [name]
    assert differences(DROPS, other)[name] == (flatten(DROPS)[name], "another")


@pytest.mark.parametrize("name", sorted(MAY_DIFFER))
def test_mesh_folder_logging_and_saving_may_differ(name):
    section, field = name.split(".")
    assert not differences(DROPS, changed(section, **{field: "another"}))


@pytest.mark.parametrize(
    ("schedule", "may_grow"), [("drops", True), ("constant", True), ("linear", False), ("cosine", False)]
)
def test_epochs_may_grow_unless_the_schedule_spans_them(schedule, may_grow):
    saved = Experiment("e", optim=Optim(schedule=schedule), train=Train(epochs=8))
    longer = dataclasses.replace(saved, train=Train(epochs=9))
    assert (not differences(saved, longer)) == may_grow


def test_epochs_may_not_shrink():
    assert differences(DROPS, changed("train", epochs=7)) == {"train.epochs": (8, 7)}


def test_all_differing_fields_are_named_with_both_values():
    other = dataclasses.replace(changed("train", seed=5), network=Network(width=0.5))
    assert differences(DROPS, other) == {"network.width": (1.0, 0.5), "train.seed": (0, 5)}


def test_data_sets_of_the_command_line_are_the_registered_ones():
    assert set(typing.get_args(typing.get_type_hints(Data)["name"])) == set(DATA_SETS)
