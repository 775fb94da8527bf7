"""Check statements of RESULTS.md, README.md and the pages against the commands and the code that they describe."""

import re
import shlex

import pages
import pytest

import experiments
from alexnet_jax.command_line import read
from alexnet_jax.network import networks
from alexnet_jax.network.table import training_operations

RESULTS = (pages.ROOT / "RESULTS.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"(?m)^#{2,3} ", RESULTS)[1:]}

CLAIMS = {
    r"\bwithout [a-z, ]*dropout": lambda e: e.network.dropout == 0,
    r"\bwithout [a-z, ]*crops": lambda e: e.data.crop == e.data.crop_padding == 0,
    r"\bwithout [a-z, ]*mirror": lambda e: not e.data.mirror,
    r"He's weights": lambda e: e.network.init == "he",
    r"falls linearly": lambda e: e.optim.schedule == "linear",
    r"over the eight epochs": lambda e: e.train.epochs == 8,
    r"all six seeds": lambda e: True,
}
"""{statement about the training of a section: whether it is true of an experiment}."""


def plans(section):
    """Return the sweeps of the commands in a section."""
    commands = re.findall(r"(?m)^python launch\.py (--exp=\w+_(?:sweep|comparison).*)$", section)
    return [read(shlex.split(command))[1] for command in commands]


@pytest.mark.parametrize("name", [name for name, text in SECTIONS.items() if plans(text)])
def test_a_section_describes_the_training_of_its_command(name):
    text = SECTIONS[name]
    (request,) = plans(text)
    for claim, holds in CLAIMS.items():
        if re.search(claim, text.replace("\n", " ")):
            assert holds(request.plan.base), claim
    planned = int(re.search(r"(\d+) planned: ", text)[1])
    assert planned == len(list(request.plan.trials()))
    network = request.plan.base.network
    assert (network.width, network.fc_units) == (1 / 8, 4096 / 16)  # "an eighth of the maps, a sixteenth of the units"


def test_the_readme_describes_the_training_of_its_command():
    readme = " ".join(pages.PAGES["README.md"].split())
    experiment = experiments.experiment("alexnet_cifar")
    table = networks.build(experiment.network, 10, experiment.data.crop)
    assert "half its maps and a quarter of its units" in readme
    assert (experiment.network.width, experiment.network.fc_units) == (1 / 2, 4096 / 4)
    assert f"kernels of {table.layers[0].kernel}x{table.layers[0].kernel} in conv1" in readme
    assert f"rate of {experiment.optim.learning_rate:g} and its linear decay, batches of {experiment.train.batch}" in readme
    assert experiment.data.crop == 28 and not experiment.data.crop_padding and "random 28x28 cuts" in readme
    assert experiment.data.views == 10 and "ten views" in readme
    assert experiment.data.scale == "std" and "scaled to a deviation of one" in readme
    assert experiment.network.init == "he" and experiment.optim.warmup and experiment.optim.schedule == "linear"


def test_operations_of_an_epoch_on_imagenet_are_counted_once():
    experiment = experiments.experiment("alexnet_imagenet")
    images = 1_281_167 - experiment.data.validation
    epoch = training_operations(networks.build(experiment.network, 1000)) * images
    texts = (pages.PAGES["docs/imagenet.md"], (pages.ROOT / "experiments" / "alexnet_imagenet.py").read_text())
    for text in texts:
        assert f"{epoch:.1e}".replace("e+", "e") in text and f"{epoch * experiment.train.epochs:.1e}".replace("e+", "e") in text
        assert len(set(re.findall(r"\d\.\de1\d", text))) == 2
