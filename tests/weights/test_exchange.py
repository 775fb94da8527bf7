"""Check `--mode=import` and `--mode=export` from the command line: resulting logits, recorded data and errors."""

import functools
import json

import jax
import numpy as np
import other_programs
import pytest
from running import command, main, state
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from alexnet_jax import model
from alexnet_jax.columns import Columns
from alexnet_jax.data import statistics
from alexnet_jax.data.augment import normalize
from alexnet_jax.experiment import Experiment
from alexnet_jax.network import networks
from alexnet_jax.network.foreign import FOREIGN
from alexnet_jax.run.restore import PARAMETERS, find_step, restore_tree
from alexnet_jax.run.workdir import Workdir

pytest_plugins = ["running"]

CLASSES = 1000


@pytest.fixture(autouse=True)
def narrow_programs(monkeypatch):
    """Replace both networks by versions with a few maps under the same names."""
    for name in FOREIGN:
        table = lambda classes, name=name: other_programs.narrowed(FOREIGN[name](classes))  # noqa: E731
        monkeypatch.setitem(networks.FIXED, name, table)


def weights_of(name, classes=CLASSES):
    return other_programs.random_weights(name, classes)


@pytest.fixture
def caffemodel(tmp_path):
    path = tmp_path / "bvlc_alexnet.caffemodel"
    between = [(f"conv{i}", f"{kind}{i}") for i in (1, 2) for kind in ("relu", "norm", "pool")] + [("conv5", "pool5")]
    path.write_bytes(other_programs.caffemodel(weights_of("caffe_alexnet"), old=True, between=between))
    return path


@pytest.fixture
def torch_weights(tmp_path):
    path = tmp_path / "alexnet.safetensors"
    save_file(other_programs.state_dict(weights_of("torchvision_alexnet")), path)
    return path


def imported(name, weights, run, *options):
    return main([f"--exp={name}", "--mode=import", f"--weights={weights}", f"--workdir={run}", *options])


def exported(name, run, weights, *options):
    return main([f"--exp={name}", "--mode=export", f"--weights={weights}", f"--workdir={run}", *options])


@pytest.fixture(scope="session")
def logits():
    """Return a function (network, run, images uint8 [batch, height, width, RGB]) -> logits, computed from the run folder."""

    @functools.cache
    def program(table):
        return jax.jit(functools.partial(model.logits, table, Columns.over(1, table.columns)))

    def compute(name, run, images):
        table = networks.build(Workdir(run).experiment().network, CLASSES)
        assert table.name == name
        parameters = restore_tree(find_step(str(run), run), PARAMETERS, model.abstract(table, Columns.over()))
        stats = statistics.restore(run / "statistics.npz")
        return np.asarray(program(table)(jax.device_get(parameters), normalize(images, stats)))

    return compute


def pixels(name):
    return np.random.default_rng(3).integers(0, 256, (2, *other_programs.IMAGES[name]), dtype=np.uint8)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# --- logits ----------------------------------------------------------------------------------------------------------


def test_torchvision_logits_from_its_transforms(torch_weights, tmp_path, capsys, logits):
    name, run = "torchvision_alexnet", tmp_path / "run"
    assert imported(name, torch_weights, run) == 0
    shown = capsys.readouterr().out
    assert "input channels of conv1 were RGB" in shown and "mean 1x1x3 (123.675, 116.28, 103.53)" in shown
    x = pixels(name) / 255.0  # ToTensor, Normalize
    x = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = other_programs.torchvision(weights_of(name), x.transpose(0, 3, 1, 2))["fc8"]
    close(logits(name, run, pixels(name)), expected)


@pytest.mark.parametrize("mean", ["colour", "image"])
def test_caffe_logits_from_its_transformer(caffemodel, tmp_path, capsys, logits, mean):
    name, run = "caffe_alexnet", tmp_path / "run"
    bgr = np.array([104.0069879317889, 116.66876761696767, 122.6789143406786])[:, None, None]
    options = []
    if mean == "image":
        height, width, _ = other_programs.IMAGES[name]
        bgr = bgr + np.random.default_rng(4).normal(size=(3, height, width)) * 20
        (tmp_path / "mean.binaryproto").write_bytes(other_programs.binaryproto(bgr.astype(np.float32)))
        options = [f"--mean_image={tmp_path / 'mean.binaryproto'}"]
    assert imported(name, caffemodel, run, *options) == 0
    assert "BGR and are now RGB" in capsys.readouterr().out
    x = pixels(name).transpose(0, 3, 1, 2)[:, ::-1] - bgr
    close(logits(name, run, pixels(name)), other_programs.caffe(weights_of(name), x)["fc8"])


def test_channels_option_for_files_without_their_order(caffemodel, tmp_path, capsys, logits):
    np.savez(tmp_path / "net.npz", **other_programs.state_dict(weights_of("caffe_alexnet"), {}))
    assert imported("caffe_alexnet", caffemodel, tmp_path / "a") == 0
    assert imported("caffe_alexnet", tmp_path / "net.npz", tmp_path / "b", "--channels=bgr") == 0
    assert imported("caffe_alexnet", tmp_path / "net.npz", tmp_path / "c") == 0
    assert "input channels of conv1 were RGB" in capsys.readouterr().out
    a, b, c = (logits("caffe_alexnet", tmp_path / run, pixels("caffe_alexnet")) for run in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01 * np.abs(a).max()


# --- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["columns", "grouped"])
def test_export_and_import_of_a_run_are_bit_exact(learned, tmp_path, compile_cache, capsys, layout):
    path, run = tmp_path / "digits.safetensors", tmp_path / "run"
    assert main(command(learned, mode="export", weights=path, layout=layout)) == 0
    assert "layout " + layout in capsys.readouterr().out
    assert main(command(run, mode="import", weights=path)) == 0
    assert "Inputs: mean 32x32x3" in capsys.readouterr().out
    before, after = state(learned)[0], parameters_of(run)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert jax.tree.structure(after) == jax.tree.structure(before)

    assert main(command(learned, mode="eval")) == 0
    line = error_line(capsys)
    assert main(command(run, mode="eval")) == 0
    assert error_line(capsys) == line


def test_a_run_without_statistics_exports_none(copied, tmp_path, capsys):
    (copied / "statistics.npz").unlink()
    path, run = tmp_path / "digits.safetensors", tmp_path / "imported"
    assert main(command(copied, mode="export", weights=path)) == 0
    assert main(command(run, mode="import", weights=path)) == 0
    assert "those of the training split will be used" in capsys.readouterr().out
    assert not (run / "statistics.npz").exists()


def parameters_of(run):
    expected = model.abstract(networks.build(Workdir(run).experiment().network, 10), Columns.over())
    return restore_tree(find_step(str(run), run), PARAMETERS, expected)


def error_line(capsys):
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Test error"))


def test_an_exported_file_has_metadata(learned, tmp_path, compile_cache):
    path = tmp_path / "digits.safetensors"
    assert main(command(learned, mode="export", weights=path, restore="39")) == 2  # not kept
    assert main(command(learned, mode="export", weights=path, restore="best", layout="grouped")) == 0
    with safe_open(path, framework="np") as file:
        notes = file.metadata()
    assert notes["program"] == "alexnet_jax" and notes["layout"] == "grouped" and notes["channels"] == "rgb"
    assert json.loads(notes["experiment"])["network"]["width"] == 0.0625
    assert load_file(path)["conv2.weight"].shape == (16, 3, 5, 5)


def test_torchvision_weights_are_exported_under_its_names(torch_weights, tmp_path):
    run, path = tmp_path / "run", tmp_path / "out.safetensors"
    assert imported("torchvision_alexnet", torch_weights, run) == 0
    assert exported("torchvision_alexnet", run, path, "--layout=grouped") == 0
    found, given = load_file(path), load_file(torch_weights)
    assert found.pop("input.mean").shape == found.pop("input.scale").shape == (1, 1, 3)
    assert set(found) == set(given) and all(found[name].tobytes() == given[name].tobytes() for name in given)


def test_statistics_are_exported_with_the_weights(caffemodel, tmp_path):
    again = tmp_path / "caffe.safetensors"
    mean = np.random.default_rng(0).uniform(100, 120, (3, 5, 4)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(other_programs.binaryproto(mean))
    assert imported("caffe_alexnet", caffemodel, tmp_path / "a", f"--mean_image={tmp_path / 'mean.binaryproto'}") == 0
    assert exported("caffe_alexnet", tmp_path / "a", again) == 0
    assert imported("caffe_alexnet", again, tmp_path / "b") == 0
    for run in "ab":
        with np.load(tmp_path / run / "statistics.npz") as found:
            np.testing.assert_array_equal(found["mean"], mean[::-1].transpose(1, 2, 0))
            np.testing.assert_array_equal(np.broadcast_to(found["scale"], (1, 1, 3)), np.ones((1, 1, 3)))


# --- the run folder --------------------------------------------------------------------------------------------------


def test_an_imported_folder_records_its_source(torch_weights, tmp_path):
    assert imported("torchvision_alexnet", torch_weights, tmp_path / "run") == 0
    record = Workdir(tmp_path / "run").record()
    assert record.restored_from == str(torch_weights)
    assert record.data.title == "weights of alexnet.safetensors" and len(record.data.fingerprint) == 16
    assert isinstance(Workdir(tmp_path / "run").experiment(), Experiment)


def test_the_default_folder_differs_from_a_trainings(torch_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--exp=torchvision_alexnet", "--mode=import", f"--weights={torch_weights}"]) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["torchvision_alexnet-imported"]


def test_an_existing_folder_is_not_overwritten(torch_weights, learned, tmp_path, capsys):
    run = tmp_path / "run"
    assert imported("torchvision_alexnet", torch_weights, run) == 0
    before = sorted(run.rglob("*"))
    assert imported("torchvision_alexnet", torch_weights, run) == 2
    assert "already contains checkpoints, experiment.json" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before
    assert imported("torchvision_alexnet", torch_weights, run, "--overwrite") == 0
    assert imported("torchvision_alexnet", torch_weights, learned) == 2


def test_training_in_an_imported_folder_is_an_error(learned, tmp_path, compile_cache, capsys):
    path, run = tmp_path / "digits.safetensors", tmp_path / "run"
    assert main(command(learned, mode="export", weights=path)) == 0
    assert main(command(run, mode="import", weights=path)) == 0
    assert main(command(run)) == 2
    message = capsys.readouterr().err
    assert "--restore" in message and "--workdir" in message
    assert main(command(tmp_path / "other", restore=path)) == 2
    assert "is a file" in capsys.readouterr().err


# --- errors -------------------------------------------------------------------------------------------------


def test_another_number_of_classes_is_for_fine_tuning(tmp_path, capsys):
    path = tmp_path / "twenty.safetensors"
    save_file(other_programs.state_dict(weights_of("torchvision_alexnet", 20)), path)
    assert imported("torchvision_alexnet", path, tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "20 classes" in shown and "--restore_skip=fc8" in shown and "--mode=eval" not in shown
    assert exported("torchvision_alexnet", tmp_path / "run", tmp_path / "out.safetensors") == 2
    assert "A new run can leave that layer out: --restore_skip=fc8." in capsys.readouterr().err


def test_another_order_of_layers_is_another_network(tmp_path, capsys):
    path = tmp_path / "bvlc_reference_caffenet.caffemodel"
    between = [("conv1", "pool1"), ("conv1", "norm1"), ("conv2", "pool2"), ("conv2", "norm2")]
    path.write_bytes(other_programs.caffemodel(weights_of("caffe_alexnet"), between=between))
    assert imported("caffe_alexnet", path, tmp_path / "run") == 2
    assert "its network has pool1, norm1 after conv1, but caffe_alexnet has norm, pool" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_wrong_file_leaves_no_folder(torch_weights, tmp_path, capsys):
    assert imported("caffe_alexnet", torch_weights, tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert "lacks conv1.weight" in message and "caffe_alexnet" in message and "Traceback" not in message
    torch_weights.write_bytes(b"")
    assert imported("torchvision_alexnet", torch_weights, tmp_path / "run") == 2
    assert "(0 bytes) cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_wrong_mean_image_is_an_error(caffemodel, tmp_path, capsys):
    (tmp_path / "mean.binaryproto").write_bytes(other_programs.binaryproto(np.ones((1, 4, 5), np.float32)))
    assert imported("caffe_alexnet", caffemodel, tmp_path / "run", f"--mean_image={tmp_path / 'mean.binaryproto'}") == 2
    assert "a mean image has 3 channels" in capsys.readouterr().err
    assert imported("caffe_alexnet", caffemodel, tmp_path / "run", "--mean_image=nowhere.binaryproto") == 2
    assert "nowhere.binaryproto cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode=import",), "--weights=FILE is missing"),
        (("--mode=export",), "--weights=FILE is missing"),
        (("--mode=eval", "--weights=a.npz"), "--weights=a.npz: expected only with --mode=import, export, not eval"),
        (("--layout=grouped",), "--layout=grouped: expected only with --mode=export"),
        (
            ("--mode=export", "--weights=a.safetensors", "--channels=bgr"),
            "--channels=bgr: expected only with --mode=import",
        ),
        (("--mode=export", "--weights=a.safetensors"), "no checkpoint folder"),
        (("--mode=import", "--weights=nowhere.pth"), "nowhere.pth: no such file"),
        (("--mode=import", "--weights=a.npz", "--restore=b"), "--restore=b: expected only with"),
    ],
)
def test_wrong_options_are_one_error(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["--exp=alexnet_digits", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sweeps_cannot_import_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--exp=pooling_sweep", "--mode=import", "--weights=a.npz"]) == 2
    assert "--mode=import is not for sweeps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"network.dropout": 0.2}, "--network.dropout=0.1, but 0.2 was requested"),
        ({"network.lrn": "none"}, "--network.lrn=paper, but none was requested"),
    ],
)
def test_equal_shapes_are_not_equal_networks(learned, tmp_path, compile_cache, capsys, option, message):
    path = tmp_path / "digits.safetensors"
    assert main(command(learned, mode="export", weights=path, layout="grouped")) == 0
    assert main(command(tmp_path / "run", mode="import", weights=path, **option)) == 2
    assert message in capsys.readouterr().err
    # Initial weights do not matter for an import.
    assert main(command(tmp_path / "run", mode="import", weights=path, network__init="he")) == 0


def test_caffe_weights_are_not_the_papers(caffemodel, tmp_path, capsys):
    assert imported("alexnet_imagenet", caffemodel, tmp_path / "run") == 2
    assert "a network with --network.name=caffe_alexnet, but alexnet was requested" in capsys.readouterr().err
