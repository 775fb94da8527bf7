"""Check that the written vectors equal those of a plain network, in both file formats and on several devices."""

import json

import numpy as np
import pytest
from PIL import Image
from running import command, main

pytest_plugins = ["running"]


def test_npz_of_a_split(untrained, digits, reference, tmp_path):
    path = tmp_path / "vectors.npz"
    assert main(command(untrained, mode="features", out=path)) == 0
    with np.load(path) as found:
        assert found["features"].dtype == np.float32 and found["features"].shape == (360, 32)
        np.testing.assert_allclose(found["features"], reference(digits["test"].images, "fc7"), rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(found["label"], digits["test"].labels)
        assert found["layer"] == "fc7" and found["classes"].tolist() == [str(i) for i in range(10)]
        assert str(found["checkpoint"]) == str(untrained / "checkpoints" / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]


def test_parquet_of_a_split_on_two_devices(untrained, digits, reference, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "vectors.parquet"
    options = {"mode": "features", "out": path, "layer": "conv5", "split": "validation", "mesh__column": 2}
    assert main(command(untrained, **options, mesh__data=2, train__eval_batch=50)) == 0
    table = parquet.read_table(path)
    found, expected = np.stack(table["features"].to_numpy()), reference(digits["validation"].images, "conv5")
    assert expected.shape == (180, 16 * 4 * 4)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(table["label"].to_numpy(), digits["validation"].labels)
    assert json.loads(table.schema.metadata[b"layer"]) == "conv5"
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.parquet"]


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_readable_pictures_are_written_with_their_paths(ending, untrained, digits, reference, tmp_path, capsys):
    folder, path = tmp_path / "pictures", tmp_path / f"vectors{ending}"
    folder.mkdir()
    for i in (0, *range(2, 6)):
        Image.fromarray(digits["test"].images[i]).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"nothing")
    assert main(command(untrained, mode="features", out=path, image=folder)) == 1
    assert "1 of 6 pictures could not be read" in capsys.readouterr().err
    if ending == ".npz":
        with np.load(path) as file:
            found, names = file["features"], file["path"].tolist()
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        found, names = np.stack(table["features"].to_numpy()), table["path"].to_pylist()
    assert names == [str(folder / f"{i}.png") for i in (0, *range(2, 6))]
    np.testing.assert_allclose(found, reference(digits["test"].images, "fc7")[[0, *range(2, 6)]], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_without_a_readable_picture_no_file_is_written(ending, untrained, tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    path = tmp_path / f"vectors{ending}"
    assert main(command(untrained, mode="features", out=path, image=tmp_path / "a.png")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_another_extension_is_an_error(untrained, tmp_path, capsys):
    assert main(command(untrained, mode="features", out=tmp_path / "vectors.csv")) == 2
    assert "expected a file ending in .npz or .parquet" in capsys.readouterr().err


def test_an_unknown_layer_is_an_error(untrained, tmp_path, capsys):
    assert main(command(untrained, mode="features", out=tmp_path / "vectors.npz", layer="fc9")) == 2
    assert "--layer=fc9: alexnet_cifar has no such layer. Its layers are conv1, " in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_full_disk_is_an_error_and_leaves_no_file(ending, untrained, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alexnet_jax.files.os.replace", full)
    path = tmp_path / f"vectors{ending}"
    assert main(command(untrained, mode="features", out=path)) == 1
    assert f"{path} could not be written ([Errno 28] No space left on device)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
