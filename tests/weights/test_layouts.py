"""Check that imported random weights of other programs give the reference's outputs after every layer."""

import dataclasses
import functools

import jax
import numpy as np
import other_programs
import pytest
import reference
from jax.sharding import PartitionSpec as P

from alexnet_jax import columns
from alexnet_jax.columns import Columns
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.network import networks
from alexnet_jax.network.foreign import FOREIGN
from alexnet_jax.network.table import LRN, Dense, shapes
from alexnet_jax.weights import layouts

CLASSES = 10
FORWARD = {"caffe_alexnet": other_programs.caffe, "torchvision_alexnet": other_programs.torchvision}


def table_of(name):
    return other_programs.narrowed(FOREIGN[name](CLASSES))


def images_for(table):
    """Return normalized images [batch, height, width, RGB]: standard deviation 60 for Caffe, 1 for torchvision."""
    scale = {"caffe_alexnet": 60.0, "torchvision_alexnet": 1.0}[table.name]
    return (scale * np.random.default_rng(1).normal(size=(2, *table.image))).astype(np.float32)


def imported(table, weights):
    """Return the parameters that the importer creates."""
    name = table.name
    parameters = layouts.from_file(table, other_programs.state_dict(weights, {}), "a file")
    return layouts.flip_channels(table, parameters) if name == "caffe_alexnet" else parameters


@pytest.fixture(scope="module")
def ours():
    """Return a function (table, parameters, images, mesh) -> {layer: output [batch, maps or units, ...] of all columns}."""

    @functools.cache
    def program(table, shape):
        upto = {s.name: dataclasses.replace(table, layers=table.layers[: i + 1]) for i, s in enumerate(table.layers)}
        outputs = {
            s.name: columns.LOGITS if s.crossing == "sum" else columns.MASKS if isinstance(s, Dense) else MAPS
            for s in table.layers
        }
        placement = Columns.over(*shape)
        run = lambda parameters, images: {n: placement.forward(t, parameters, images) for n, t in upto.items()}  # noqa: E731
        specs = (placement.parameter_specs(table), columns.BATCH_LAST)
        return jax.jit(placement.per_device(run, specs, outputs))

    def outputs(table, parameters, images, mesh=(1, 1)):
        found = jax.device_get(program(table, mesh)(parameters, images.transpose(3, 1, 2, 0)))
        joined = {n: x if n == "fc8" else x.reshape(-1, *x.shape[2:]) for n, x in found.items()}
        return {name: np.moveaxis(x, -1, 0) for name, x in joined.items()}

    return outputs


MAPS = P("column", None, None, None, "data")


def foreign_outputs(name, weights, images):
    """Return the outputs of the reference forward pass on the same images, in its own order of channels."""
    planes = images.transpose(0, 3, 1, 2)
    return FORWARD[name](weights, planes[:, ::-1] if name == "caffe_alexnet" else planes)


def differences(found, expected):
    """Return {layer: largest difference, relative to the largest value of the layer}."""
    assert list(found) == list(expected)
    for name, x in expected.items():
        assert found[name].shape == x.shape, name
    return {name: np.abs(found[name] - x).max() / np.abs(x).max() for name, x in expected.items()}


@pytest.mark.parametrize(
    ("name", "mesh"), [("caffe_alexnet", (1, 1)), ("caffe_alexnet", (1, 2)), ("torchvision_alexnet", (1, 1))]
)
def test_every_layer_equals_the_other_programs(name, mesh, ours):
    table, weights = table_of(name), other_programs.random_weights(name, CLASSES)
    expected = compare_layers(table, weights, mesh, ours)
    assert expected["conv5"].shape[2:] == (2, 3)


@pytest.mark.evidence
@pytest.mark.parametrize(("name", "mesh"), [("caffe_alexnet", (1, 2)), ("torchvision_alexnet", (1, 1))])
def test_full_size_layers_equal_the_other_programs(name, mesh, ours):
    table, weights = (
        FOREIGN[name](1000),
        other_programs.random_weights(name, 1000, other_programs.FULL_MAPS[name], 6 * 6),
    )
    compare_layers(table, weights, mesh, ours)


def compare_layers(table, weights, mesh, ours):
    images = images_for(table)
    expected = foreign_outputs(table.name, weights, images)
    found = ours(table, imported(table, weights), images, mesh)
    assert max(differences(found, expected).values()) < 1e-5  # float32 rounding
    for layer, x in expected.items():  # elementwise
        np.testing.assert_allclose(found[layer], x, rtol=1e-4, atol=1e-5 * np.abs(x).max(), err_msg=layer)
    return expected


@pytest.mark.parametrize(
    ("name", "mistake", "layer"),
    [
        ("caffe_alexnet", "BGR", "conv1"),
        ("caffe_alexnet", "LRN within columns", "conv1"),
        ("caffe_alexnet", "columns exchanged", "conv2"),
        ("caffe_alexnet", "NHWC", "fc6"),
        ("caffe_alexnet", "columns interleaved", "fc8"),
        ("torchvision_alexnet", "NHWC", "fc6"),
    ],
)
def test_an_import_mistake_shows_at_its_layer(name, mistake, layer, ours):
    weights, images = other_programs.random_weights(name, CLASSES), images_for(table_of(name))
    table, parameters = wrong(table_of(name), imported(table_of(name), weights), mistake)
    found = differences(ours(table, parameters, images), foreign_outputs(name, weights, images))
    before = list(found)[: list(found).index(layer)]
    assert found[layer] > 1e-2 and all(found[name] < 1e-5 for name in before)


def wrong(table, parameters, mistake):
    """Return the table and parameters that an importer with a mistake would create."""
    kernel = {name: both["kernel"].copy() for name, both in parameters.items()}
    match mistake:
        case "BGR":
            kernel["conv1"] = kernel["conv1"][:, :, ::-1]
        case "columns exchanged":
            kernel["conv2"] = kernel["conv2"][::-1]
        case "NHWC":
            fc6 = kernel["fc6"]
            kernel["fc6"] = fc6.reshape(*fc6.shape[:2], -1, 2, 3).transpose(0, 1, 3, 4, 2).reshape(fc6.shape)
        case "columns interleaved":
            kernel["fc8"] = kernel["fc8"].transpose(1, 2, 0).reshape(CLASSES, 2, -1).transpose(1, 0, 2)
        case "LRN within columns":
            table = each_part(table, lambda part: dataclasses.replace(part, across=False), LRN)
    return table, {name: both | {"kernel": np.ascontiguousarray(kernel[name])} for name, both in parameters.items()}


def each_part(table, change, kind):
    layers = (
        dataclasses.replace(s, after=tuple(change(p) if isinstance(p, kind) else p for p in s.after))
        for s in table.layers
    )
    return dataclasses.replace(table, layers=tuple(layers))


# --- the reference itself, and other frameworks ----------------------------------------------------------------------


def plain_torch(torch, table):
    """Return torch's own modules for the layers of a grouped network on one device."""
    nn = torch.nn
    maps, groups = 3, table.columns
    layers = {}
    for shape in shapes(table):
        spec = shape.spec
        if isinstance(spec, Dense):
            layers[spec.name] = nn.Linear(
                int(np.prod(shape.inputs)) * (groups if spec.crossing == "sum" else 1), spec.units
            )
        else:
            own = groups if spec.crossing is None and maps != 3 else 1
            layers[spec.name] = nn.Conv2d(maps, spec.maps, spec.kernel, spec.stride, groups=own)
            maps = spec.maps
    return nn.ModuleDict(layers)


def through_torch(torch, table, network, images):
    """Return the logits of images [batch, height, width, RGB] in eval mode, without dropout."""
    functional = torch.nn.functional
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for spec in table.layers:
        if isinstance(spec, Dense):
            x = network[spec.name](x.flatten(1))
        else:
            before, behind = spec.padding
            x = network[spec.name](functional.pad(x, (before, behind, before, behind)))
        for part in spec.after:
            match type(part).__name__:
                case "ReLU":
                    x = x.relu()
                case "MaxPool":
                    x = functional.max_pool2d(x, part.window, part.stride, ceil_mode=True)
                case "LRN":
                    x = functional.local_response_norm(x, part.size, part.size * part.alpha, part.beta, part.k)
    return x.detach().numpy()


@pytest.mark.parametrize("name", FOREIGN)
def test_the_grouped_layout_is_a_torch_state_dict(name, ours):
    """The paper's network is covered by test_weights_docs.py."""
    torch = pytest.importorskip("torch")
    table = table_of(name)
    parameters = reference.random_parameters(shapes(table), dtype=np.float32)
    plain_names = dataclasses.replace(table, name="any")  # conv1 rather than torchvision's features.0
    network = plain_torch(torch, table)
    exported = layouts.to_file(plain_names, parameters, "grouped")
    network.load_state_dict({key: torch.from_numpy(tensor.copy()) for key, tensor in exported.items()})
    images = np.random.default_rng(2).normal(size=(2, *table.image)).astype(np.float32) * 50
    expected = through_torch(torch, table, network, images)
    found = ours(table, parameters, images)["fc8"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_reference_equals_torchvisions_module():
    """The module follows torchvision/models/alexnet.py, with fewer maps."""
    torch = pytest.importorskip("torch")
    nn, name = torch.nn, "torchvision_alexnet"
    m, weights = other_programs.MAPS[name], other_programs.random_weights(name, CLASSES)
    features = nn.Sequential(
        *(nn.Conv2d(3, m["conv1"], 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(m["conv1"], m["conv2"], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(m["conv2"], m["conv3"], 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(m["conv3"], m["conv4"], 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(m["conv4"], m["conv5"], 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(m["conv5"] * 6, m["fc6"]), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(m["fc6"], m["fc7"]), nn.ReLU(), nn.Linear(m["fc7"], CLASSES)),
    )
    network = nn.Sequential(*[*features, nn.Flatten(), *classifier]).double().eval()
    both = nn.ModuleDict({"features": features, "classifier": classifier})
    named = other_programs.state_dict(weights)
    both.load_state_dict({key: torch.from_numpy(tensor) for key, tensor in named.items()})
    images = images_for(table_of(name))
    found = network(torch.from_numpy(images.transpose(0, 3, 1, 2)).double()).detach().numpy()
    np.testing.assert_allclose(foreign_outputs(name, weights, images)["fc8"], found, rtol=1e-10)


def test_the_references_normalization_equals_torchs():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 9, 3, 4)) * 100
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(x), 5, 1e-4, 0.75, 1.0)
    np.testing.assert_allclose(other_programs.normalize(x), expected, rtol=1e-12)


# --- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["columns", "grouped"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {"image": (67, 67, 3)}),
        ("alexnet_cifar", {"order": "original"}),
        ("alexnet_cifar", {"columns": 1}),
        ("alexnet_cifar", {"crossings": "conv4_for_conv3", "without": "fc7"}),
        ("caffe_alexnet", {}),
        ("torchvision_alexnet", {}),
    ],
    ids=str,
)
def test_round_trip_is_exact(name, options, layout, narrow):
    table = table_of(name) if name in FOREIGN else narrow(name, **options)
    parameters = reference.random_parameters(shapes(table), dtype=np.float32)
    exported = layouts.to_file(table, parameters, layout)
    back = layouts.from_file(table, exported, "a file")
    assert jax.tree.structure(back) == jax.tree.structure(parameters)
    for path, leaf in jax.tree.leaves_with_path(parameters):
        found = back[path[0].key][path[1].key]
        assert found.shape == leaf.shape and found.dtype == leaf.dtype
        assert found.tobytes() == leaf.tobytes(), path
    assert jax.tree.all(jax.tree.map(np.array_equal, layouts.to_file(table, back, layout), exported))


@pytest.mark.parametrize("name", FOREIGN)
def test_imported_weights_are_exported_unchanged(name):
    weights = other_programs.random_weights(name, CLASSES)
    names = other_programs.TORCHVISION if name == "torchvision_alexnet" else {}
    given = other_programs.state_dict(weights, names)
    parameters = layouts.from_file(table_of(name), given, "a file")
    exported = layouts.to_file(table_of(name), parameters, "grouped")
    assert list(exported) == list(given)
    assert all(
        exported[key].tobytes() == given[key].tobytes() and exported[key].shape == given[key].shape for key in given
    )


def test_flipping_channels_twice_is_the_identity():
    table = table_of("torchvision_alexnet")
    parameters = imported(table, other_programs.random_weights("torchvision_alexnet", CLASSES))
    once = layouts.flip_channels(table, parameters)
    np.testing.assert_array_equal(once["conv1"]["kernel"][:, :, 0], parameters["conv1"]["kernel"][:, :, 2])
    assert jax.tree.all(jax.tree.map(np.array_equal, layouts.flip_channels(table, once), parameters))


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer"), [("cuda_convnet_13pct", "local3"), ("none_before_fc8", "fc6")])
def test_grouped_layout_rejects_local_and_separate_layers(name, layer, narrow):
    if name == "none_before_fc8":
        table = narrow(crossings=name)
    else:
        table = networks.build(Network(name, columns=1), CLASSES)
    parameters = reference.random_parameters(shapes(table), dtype=np.float32)
    with pytest.raises(UsageError, match=f"{layer} has .*--layout=columns"):
        layouts.to_file(table, parameters, "grouped")
    exported = layouts.to_file(table, parameters, "columns")
    assert jax.tree.all(jax.tree.map(np.array_equal, layouts.from_file(table, exported, "a file"), parameters))


def spoilt(how):
    tensors = other_programs.state_dict(other_programs.random_weights("torchvision_alexnet", CLASSES))
    match how:
        case "missing":
            del tensors["classifier.4.weight"]
        case "unknown":
            tensors["features.1.running_mean"] = np.zeros(8, np.float32)
        case "turned":
            tensors["classifier.1.weight"] = tensors["classifier.1.weight"].T
        case "another":
            tensors = {"blocks.0.attention.qkv": np.zeros((3, 3), np.float32)}
    return tensors


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "a file lacks fc7.weight. Expected the weights of torchvision_alexnet"),
        ("unknown", "a file has features.1.running_mean, which torchvision_alexnet does not have"),
        ("turned", r"fc6.weight has the shape \[72, 32\], but torchvision_alexnet expects \[32, 72\]"),
        ("another", "a file lacks conv1.weight, .* and has blocks.0.attention.qkv"),
    ],
)
def test_wrong_tensors_are_named(how, message):
    with pytest.raises(UsageError, match=message):
        layouts.from_file(table_of("torchvision_alexnet"), spoilt(how), "a file")


def test_columns_of_another_width_are_named(narrow):
    table, wider = narrow(), narrow(width=1 / 8)
    exported = layouts.to_file(wider, reference.random_parameters(shapes(wider), dtype=np.float32), "columns")
    message = r"conv1.kernel has the shape \[2, 6, 3, 5, 5\], but alexnet_cifar expects \[2, 3, 3, 5, 5\]"
    with pytest.raises(UsageError, match=message):
        layouts.from_file(table, exported, "a file")
