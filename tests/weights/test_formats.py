"""Check that every kind of weight file is read exactly, damaged files raise one error, and nothing is unpickled."""

import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import other_programs
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from weight_files import KINDS, NAMED, WEIGHTS, written

from alexnet_jax.errors import RunError, UsageError
from alexnet_jax.weights import caffe, formats


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_exactly(tmp_path, kind):
    expected = other_programs.state_dict(WEIGHTS, {}) if kind == ".caffemodel" else NAMED
    found = formats.read(written(tmp_path, kind))
    assert list(found.tensors) == list(expected) or kind == ".safetensors"  # safetensors sorts the names
    for name, tensor in expected.items():
        assert found.tensors[name].dtype == np.float32 and found.tensors[name].tobytes() == tensor.tobytes()
    assert found.channels == ("bgr" if kind == ".caffemodel" else "rgb")


# --- Caffe -----------------------------------------------------------------------------------------------------------


def test_caffes_old_and_new_files_are_equal(tmp_path):
    between = (("conv1", "relu1"), ("conv1", "norm1"), ("conv1", "pool1"))
    for old in (False, True):
        path = tmp_path / "alexnet.caffemodel"
        path.write_bytes(other_programs.caffemodel(WEIGHTS, old=old, between=between))
        found = formats.read(path)
        assert found.order[:5] == ("conv1", "relu1", "norm1", "pool1", "conv2")
        assert found.tensors["fc6.weight"].shape == ((1, 1, 32, 72) if old else (32, 72))
        for name, tensor in other_programs.state_dict(WEIGHTS, {}).items():
            np.testing.assert_array_equal(found.tensors[name].ravel(), tensor.ravel(), err_msg=name)


def test_caffe_float64_values_in_pieces(tmp_path):
    numbers = np.arange(6.0)
    shape = other_programs.field(7, other_programs.field(1, b"\x02\x03"))
    pieces = [other_programs.field(8, numbers[:2].tobytes()), other_programs.field(8, numbers[2:].tobytes())]
    blob = other_programs.field(7, b"".join(pieces) + shape)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(other_programs.field(100, other_programs.text(1, "fc6") + blob))
    np.testing.assert_array_equal(formats.read(path).tensors["fc6.weight"], numbers.reshape(2, 3))


def test_a_mean_image_is_read_as_rgb(tmp_path):
    mean = np.random.default_rng(0).uniform(100, 130, (3, 4, 5)).astype(np.float32)
    path = tmp_path / "imagenet_mean.binaryproto"
    path.write_bytes(other_programs.binaryproto(mean))
    found = caffe.read_mean(path)
    assert found.shape == (4, 5, 3)
    np.testing.assert_array_equal(found[..., 0], mean[2])  # in Caffe, red is last
    np.testing.assert_array_equal(found[..., 2], mean[0])


# --- torch -----------------------------------------------------------------------------------------------------------


def test_a_training_checkpoint_of_data_parallel_torch(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {f"features.module.{i}.weight": torch.ones(2) for i in (0, 3)} | {
        "module.classifier.1.bias": torch.ones(1)
    }
    torch.save({"epoch": 90, "arch": "alexnet", "state_dict": tensors}, tmp_path / "checkpoint.pth")
    found = formats.read(tmp_path / "checkpoint.pth")
    assert list(found.tensors) == ["features.0.weight", "features.3.weight", "classifier.1.bias"]


PREFIXES = ["", "module.", "_orig_mod.", "model.", "_orig_mod.module.", "module.model.", "model._orig_mod.net."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_all_names_are_removed_and_reported(prefix, tmp_path):
    path = tmp_path / "alexnet.safetensors"
    save_file({f"{prefix}{name}": np.ones(2, np.float32) for name in ("conv1.weight", "fc8.bias")}, path)
    found = formats.read(path)
    assert sorted(found.tensors) == ["conv1.weight", "fc8.bias"]
    assert set(found.unwrapped) == {f"{part}." for part in prefix.split(".") if part}


def test_two_networks_in_one_file_are_an_error(tmp_path):
    tensors = {"module.conv1.weight": np.ones(2, np.float32), "conv1.weight": np.zeros(2, np.float32)}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="names are equal without module"):
        formats.read(tmp_path / "w.safetensors")


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
    save_file({"model.a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, tmp_path / "w.safetensors")
    assert sorted(formats.read(tmp_path / "w.safetensors").tensors) == ["b", "model.a"]


@pytest.mark.parametrize("name", ["best.pth", "model_best.pth.tar", "last.pt"])
@pytest.mark.parametrize("keys", [(), ("model",), ("state_dict",), ("model_state_dict",), ("state_dict", "model")])
def test_wrapped_parameters_of_torch_are_unwrapped(keys, name, tmp_path):
    torch = pytest.importorskip("torch")
    found = {"module.conv1.weight": torch.nn.Parameter(torch.ones(2))}
    for key in reversed(keys):
        found = {"epoch": 3, key: found}
    torch.save(found, tmp_path / name)
    read = formats.read(tmp_path / name)
    assert read.unwrapped == (*keys, "module.") and list(read.tensors) == ["conv1.weight"]
    np.testing.assert_array_equal(read.tensors["conv1.weight"], np.ones(2, np.float32))


@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_16_bit_floats_are_read_exactly(tmp_path, kind):
    path, numbers = tmp_path / f"half{kind}", np.array([1.5, -2.25, 3e-3])
    if kind == ".pth":
        torch = pytest.importorskip("torch")
        torch.save({"a.weight": torch.tensor(numbers).bfloat16(), "b.weight": torch.tensor(numbers).half()}, path)
    else:
        save_file({"a.weight": numbers.astype(ml_dtypes.bfloat16), "b.weight": numbers.astype(np.float16)}, path)
    found = formats.read(path).tensors
    np.testing.assert_array_equal(found["a.weight"], numbers.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(found["b.weight"], numbers.astype(np.float16).astype(np.float32))


def test_a_state_dict_without_torch_is_an_error(tmp_path, monkeypatch):
    path = written(tmp_path, ".pth")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match="needs torch, which is not installed.*safetensors"):
        formats.read(path)


class Trap:
    """An object that creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("kind", [".npz", ".pt", ".pth", ".safetensors", ".caffemodel"])
@pytest.mark.parametrize("form", ["bare", "zipped"])
def test_nothing_is_unpickled(tmp_path, monkeypatch, kind, form):
    if kind in (".pt", ".pth"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"trap{kind}"
    if form == "bare":
        path.write_bytes(pickle.dumps({"a": Trap()}))
    elif kind == ".npz":
        np.savez(path, a=np.array([Trap()], object))
    else:
        with zipfile.ZipFile(path, "w") as archive:  # the format of torch since 1.6
            archive.writestr("trap/data.pkl", pickle.dumps({"a": Trap()}, protocol=2))
            archive.writestr("trap/version", "3\n")
            archive.writestr("trap/byteorder", "little")
    with pytest.raises(UsageError, match=f"trap{kind} .* cannot be read") as refused:
        formats.read(path)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "sprung").exists()


def test_the_trap_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))
    assert (tmp_path / "sprung").exists()


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["truncated", "empty", "a picture", "text", "of another kind"])
def test_a_damaged_or_wrong_file_is_one_error(tmp_path, kind, damage):
    path = written(tmp_path, kind)
    match damage:
        case "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        case "empty":
            path.write_bytes(b"")
        case "a picture":
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
        case "text":
            path.write_text("<html><body>404 Not Found</body></html>\n" * 20)
        case "of another kind":
            other = written(tmp_path, ".npz" if kind == ".safetensors" else ".safetensors")
            path.write_bytes(other.read_bytes())
    with pytest.raises(UsageError) as refused:
        formats.read(path)
    message = str(refused.value)
    assert str(path) in message and f"{path.stat().st_size:,} bytes" in message and "Download it again" in message
    assert len(message.splitlines()) == 1
    assert "allow_pickle" not in message and "weights_only" not in message  # suggests no unsafe option


def test_a_torch_file_without_tensors_is_an_error(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="it is no dictionary of tensors"):
        formats.read(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv1.weight": np.array([1.0, np.nan], np.float32)}, "conv1.weight has values that are not finite"),
        ({"conv1.weight": np.array([1e300])}, "conv1.weight has values that are not finite"),  # in 32 bits
        ({"conv1.weight": np.array([1, 2])}, "conv1.weight has the dtype int64, not floating point"),
        ({}, "it contains no weights"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_values_that_are_no_weights_are_an_error(tmp_path, tensors, message):
    np.savez(tmp_path / "weights.npz", **tensors)
    with pytest.raises(UsageError, match=message):
        formats.read(tmp_path / "weights.npz")


def test_missing_file_and_unknown_extension(tmp_path):
    with pytest.raises(UsageError, match="nowhere.npz: no such file"):
        formats.read(tmp_path / "nowhere.npz")
    with pytest.raises(
        UsageError, match=r"weights.h5: expected a file ending in .npz, .safetensors, .pt, .pth, .pth.tar, .caffemodel"
    ):
        formats.read(tmp_path / "weights.h5")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_written_file_has_its_values_and_metadata(tmp_path):
    path = tmp_path / "new folder" / "weights.safetensors"
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    formats.write(path, {"fc8.weight": turned, "input.scale": np.float32(3)}, {"layout": "grouped"})
    np.testing.assert_array_equal(load_file(path)["fc8.weight"], turned)
    assert load_file(path)["input.scale"].shape == () and load_file(path)["input.scale"] == 3
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"layout": "grouped"}


def test_an_existing_file_is_not_replaced(tmp_path):
    path = tmp_path / "weights.safetensors"
    formats.write(path, {"a": np.zeros(2, np.float32)}, {})
    with pytest.raises(UsageError, match="the file exists.*--overwrite"):
        formats.write(path, {"a": np.ones(2, np.float32)}, {})
    assert not load_file(path)["a"].any()
    formats.write(path, {"a": np.ones(2, np.float32)}, {}, overwrite=True)
    assert load_file(path)["a"].all()
    with pytest.raises(UsageError, match="expected a file ending in .safetensors"):
        formats.write(tmp_path / "weights.npz", {}, {})


def test_a_failed_write_leaves_the_old_file_only(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    formats.write(path, {"a": np.zeros(2, np.float32)}, {})

    def full(tensors, name, notes):
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "save_file", full)
    with pytest.raises(
        RunError, match=r"weights.safetensors could not be written: .*No space left on device.*free space"
    ):
        formats.write(path, {"a": np.ones(2, np.float32)}, {}, overwrite=True)
    monkeypatch.undo()
    assert not load_file(path)["a"].any() and os.listdir(tmp_path) == ["weights.safetensors"]
