"""Check that the benchmarks measure the networks that they name, and report programs that fail."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from reference import random_examples, random_parameters
from running import ROOT

from alexnet_jax.network import layers
from alexnet_jax.network.table import shapes
from benchmarks import machine, plain, rivals, shares, sizes, start, step
from benchmarks.sizes import Job

SMALL = "alexnet_digits"  # no size of the command line, but quick to compile


def test_operations_of_a_training_step():
    job = Job("alexnet_cifar_full", 128)
    assert job.operations == pytest.approx(188e9 * (28 / 32) ** 2, rel=0.02)  # once forward, twice backward


@pytest.mark.parametrize("size", sizes.SIZES)
def test_every_size_is_an_experiment(size):
    job = Job(size, 2)
    assert job.table.classes == (1000 if size == "alexnet_imagenet" else 10)
    assert size.startswith(job.experiment.name)
    assert sizes.batches(size, "cpu") and sizes.batches(size, "gpu")


def test_narrower_sizes_have_the_widths_of_the_published_sweeps():
    assert (Job("alexnet_cifar_eighth", 2).experiment.network.width) == 0.125
    assert (Job("alexnet_cifar_eighth", 2).experiment.network.fc_units) == 256


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [None, *(size for size in sizes.SIZES if not size.startswith("alexnet"))])
def test_the_pytorch_network_equals_the_plain_one(narrow, size, channels_last):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (requirements-bench.txt)")
    from benchmarks import pytorch

    table = Job(size, 2).table if size else narrow(image=(32, 32, 3))
    parameters = random_parameters(shapes(table), dtype=np.float32)
    images, _ = random_examples(table, 3, dtype=np.float32)
    network = pytorch.Network(table).eval()
    halved = {name: dict(leaves) for name, leaves in parameters.items()}
    for name in () if size else ("fc7", "fc8"):  # torch scales units in training, the paper at test time
        halved[name]["kernel"] = parameters[name]["kernel"] * np.float32(0.5)
    pytorch.load(network, table, halved)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.no_grad():
        found = network(torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=layout)).numpy()
    np.testing.assert_allclose(found, plain.logits(table, parameters, images), rtol=1e-3, atol=1e-4)


@pytest.mark.evidence
def test_a_run_measures_a_program_and_writes_its_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(step, "backend", lambda: "cpu")
    file = tmp_path / "rows.json"
    step.main(step.Options(SMALL, 16, ("ours",), rounds=2, json=file))
    report = json.loads(file.read_text())
    (row,) = report["rows"]
    assert report["machine"]["cores"] >= 1 and report["machine"]["processor"]
    assert row["speeds"]["product"] > 0.1 and row["speeds"]["copy"] > 0.1
    assert (row["size"], row["batch"], row["precision"], row["program"]) == (SMALL, 16, "float32", "ours")
    assert row["images_per_s"] == pytest.approx(16_000 / row["median_ms"])
    assert 100 < row["peak_rss_mb"] < 2048
    assert row["of_peak"] > 0
    shown = capsys.readouterr().out
    spent = dict(re.findall(r"(\w+) (\d+)%", shown.split("time of ours by layer: ")[1]))
    assert int(spent["conv2"]) > 5 and int(spent["rest"]) < 30


def test_a_program_that_fails_is_reported_and_skipped(capsys):
    with rivals.started(["nonsense"], Job(SMALL, 2)) as programs:
        assert programs == {}
    output = capsys.readouterr().out
    assert "nonsense: compiling" in output and "skipped: nonsense ended with status 1; its error: KeyError" in output


def test_a_program_that_ends_between_requests_is_reported():
    with rivals.started(["product"], Job(SMALL, 2)) as programs:
        programs["product"].process.kill()
        programs["product"].process.wait()
        with pytest.raises(RuntimeError, match="product ended with status -9"):
            programs["product"].time("step")


@pytest.mark.parametrize("size", [SMALL, "cuda_convnet_18pct", "cuda_convnet_11pct"])
def test_parts_have_the_names_and_gradients_of_pytorchs(size):
    pytest.importorskip("torch", reason="PyTorch is not installed (requirements-bench.txt)")
    from benchmarks import ours, pytorch

    job = Job(size, 2)
    mine, theirs = ours.parts(job), pytorch.parts(job.table, 2, "float32", channels_last=False)
    assert list(mine) == list(theirs)
    assert {"conv1", "conv1 LRN", "conv1 pool"} <= set(mine)
    for name in mine:
        _, gradients = mine[name]()
        sizes_ = sorted(gradient.size for gradient in gradients)
        assert sizes_ == sorted(gradient.numel() for gradient in theirs[name]()), name


def test_figures_of_a_busy_machine_are_not_settled():
    quiet = machine.Machine(processor="", cores=2, vectors="avx2", caches={}, load=0.1)
    assert machine.disturbance(quiet, 100, 95) is None
    assert "product ran at 100 GFLOP/s at the start and at 80" in machine.disturbance(quiet, 100, 80)
    assert "load average was 0.90 per core" in machine.disturbance(quiet | {"load": 0.9}, 100, 100)


def test_the_machine_is_described():
    found = machine.describe()
    assert found["processor"] and found["cores"] >= 1 and found["load"] >= 0


def test_parts_are_added_up_by_kind():
    found = {"conv1": {"parts": 1.0, "x": 2.0}, "conv1 LRN": {"parts": 3.0}, "conv2": {"parts": 5.0}, "fc6": {"parts": 7.0}}
    total = step.sums(found)
    assert total["all convs"] == {"parts": 6, "x": 2}
    assert total["all LRN"] == {"parts": 3} and total["all fc"] == {"parts": 7}


def test_shares_of_scopes_add_up_to_one():
    def work(x):
        with jax.named_scope("conv1"):
            x = layers.dense(x, x)  # its custom gradient belongs to the layer too
        with jax.named_scope("fc8"):
            return (x @ x).sum()

    x = np.ones((256, 256), np.float32)
    program = jax.jit(jax.grad(work)).lower(x).compile()
    found = shares.shares(lambda: program(x), program.as_text(), ["conv1", "fc8", "update"])
    assert sum(found.values()) == pytest.approx(1)
    assert min(found["conv1"], found["fc8"]) > 0.05 > found["rest"]
    assert found["update"] == 0


def test_the_input_alone_is_measured():
    assert start.input_seconds("alexnet_digits", images=200) > 0


def test_a_start_that_fails_is_an_error(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.start", "--exp=alexnet_nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "alexnet_nowhere" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("options", [["--rounds=0"], ["--size=alexnet_nowhere"], ["--batch=0"]])
def test_wrong_options_are_an_error(options):
    run = subprocess.run([sys.executable, "-m", "benchmarks.step", *options], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0
    assert options[0].split("=")[0] in run.stderr + run.stdout and "Traceback" not in run.stderr
