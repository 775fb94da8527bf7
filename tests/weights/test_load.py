"""Check that `alexnet_jax.load` of a run, checkpoint or weight file predicts as in the evaluation of the training."""

import numpy as np
import other_programs
import pytest
from running import main, result

import alexnet_jax
from alexnet_jax.data import digits
from alexnet_jax.data.registry import class_names
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import DIGITS, Data
from alexnet_jax.network import networks
from alexnet_jax.network.foreign import FOREIGN
from alexnet_jax.run.restore import best_step, step_folders

pytest_plugins = ["running"]


@pytest.mark.parametrize("mesh", [(1, 1), (2, 2)])
def test_a_run_predicts_with_its_test_error(learned, mesh):
    model, test = alexnet_jax.load(learned, mesh=alexnet_jax.make_mesh(*mesh)), digits.load(DIGITS).test
    found = [one.names[0] for one in model.predict(test.images, top=1)]
    error = np.mean([name != str(label) for name, label in zip(found, test.labels, strict=True)])
    assert error == pytest.approx(result(learned)["top1_error"], abs=1e-9)
    assert error < 0.5


def test_latest_best_a_number_and_a_folder_name_a_checkpoint(learned):
    folders = step_folders(learned / "checkpoints")
    first, last = (np.asarray(alexnet_jax.load(folder).conv1.kernel[...]) for folder in (folders[0], str(folders[-1])))
    assert not np.array_equal(first, last)
    for step, expected in [("latest", last), (int(folders[0].name), first)]:
        np.testing.assert_array_equal(alexnet_jax.load(str(learned), step).conv1.kernel[...], expected)
    best = alexnet_jax.load(learned / "checkpoints" / str(best_step(learned / "checkpoints")))
    np.testing.assert_array_equal(alexnet_jax.load(learned, "best").conv1.kernel[...], best.conv1.kernel[...])


def test_what_is_no_run_is_refused(learned, tmp_path):
    with pytest.raises(UsageError, match="has no experiment.json. Expected a run folder"):
        alexnet_jax.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no such checkpoint"):
        alexnet_jax.load(learned, 7777)


def test_class_names_are_those_of_the_data_set():
    assert class_names(DIGITS) == digits.load(DIGITS).classes
    assert class_names(Data("imagenet2012"))[998:] == ("998", "999")


def test_a_file_of_weights_is_the_network_that_import_makes(tmp_path, monkeypatch):
    monkeypatch.setitem(
        networks.FIXED, "caffe_alexnet", lambda classes: other_programs.narrowed(FOREIGN["caffe_alexnet"](classes))
    )
    path, run = tmp_path / "caffe.caffemodel", tmp_path / "run"
    path.write_bytes(other_programs.caffemodel(other_programs.random_weights("caffe_alexnet", 7)))
    with pytest.raises(UsageError, match="Add network=..., such as network='caffe_alexnet'"):
        alexnet_jax.load(path)
    model = alexnet_jax.load(path, network="caffe_alexnet")
    assert model.classes == tuple("0123456") and model.normalization is not None
    assert model.normalization.mean.shape == (1, 1, 3)
    for name in "abcdefg":
        (tmp_path / "classes" / name).mkdir(parents=True)
    options = ["--exp=caffe_alexnet", "--mode=import", f"--weights={path}", f"--workdir={run}"]
    assert main([*options, "--data.name=folder", f"--data.dir={tmp_path / 'classes'}"]) == 0
    imported = alexnet_jax.load(run)
    assert imported.classes == tuple("abcdefg")
    np.testing.assert_array_equal(imported.fc8.kernel[...], model.fc8.kernel[...])
