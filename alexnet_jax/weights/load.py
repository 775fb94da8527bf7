"""`alexnet_jax.load`: a trained network as a flax module, from a run folder, a checkpoint or a file of weights."""

from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh

from alexnet_jax import assembly, columns
from alexnet_jax.data.registry import class_names
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import Network
from alexnet_jax.hybrid import placement_of
from alexnet_jax.model import AlexNet, abstract, shardings
from alexnet_jax.network import networks
from alexnet_jax.run.restore import restore_parameters
from alexnet_jax.run.workdir import RECORD, Workdir
from alexnet_jax.weights import exchange


def load(
    path: str | Path, step: int | str = "latest", *, mesh: Mesh | None = None, network: str | Network | None = None
) -> AlexNet:
    """Return a trained network in evaluation mode, with its normalization and the names of its classes.

    Args:
      path: A run folder such as `runs/alexnet_cifar`, the folder of one of its checkpoints, or a file of weights
        (.safetensors, .npz, .pt, .pth or .caffemodel).
      step: The checkpoint of a run folder: "latest", "best" or a step number.
      mesh: The devices, from `make_mesh(data, column)`; one device by default.
      network: Of a file of weights: the network, by its name or as a record of `experiment.Network`.

    ImageNet's classes, and those of a file of weights, are named by their numbers. An evaluation that averages several views
    (`--data.views`) or computes in bfloat16 differs slightly from `AlexNet.predict`, which uses one view in float32.

    Raises:
      UsageError: The path or step does not exist, `network` is missing, or the weights do not fit the network or the mesh.
      RunError: The run folder is damaged.
    """
    path, mesh = Path(path), mesh or columns.make_mesh()
    return _from_file(path, network, mesh) if path.is_file() else _from_run(path, str(step), mesh)


def _from_run(path: Path, step: str, mesh: Mesh) -> AlexNet:
    path = path.absolute()
    if path.name.isdigit() and path.parent.name == "checkpoints":
        path, step = path.parents[1], path.name
    experiment = Workdir(path).experiment()
    if experiment is None:
        raise UsageError(
            f"{path} has no {RECORD}. Expected a run folder, one of its checkpoints, or a file of weights."
        )
    table = assembly.build_table(experiment)
    checkpoint, parameters = restore_parameters(step, path, abstract(table, placement_of(mesh)))
    return AlexNet(
        table,
        mesh=mesh,
        rngs=nnx.Rngs(0),
        parameters=parameters,
        normalization=assembly.trained_with(checkpoint),
        classes=class_names(experiment.data),
        side={"cifar10": 32, "digits": 32}.get(experiment.data.name, experiment.data.side),
    )


def _from_file(path: Path, network: str | Network | None, mesh: Mesh) -> AlexNet:
    if network is None:
        raise UsageError(
            f"{path} does not say which network it belongs to. Add network=..., such as network='caffe_alexnet'."
        )
    record = network if isinstance(network, Network) else Network(network)  # type: ignore[arg-type] - checked by build
    found = exchange.read_network(path, record, networks.build(record, classes=1000))
    placements = shardings(found.table, placement_of(mesh))
    return AlexNet(
        found.table,
        mesh=mesh,
        rngs=nnx.Rngs(0),
        parameters=jax.tree.map(jax.device_put, found.parameters, placements),
        normalization=found.statistics,
        classes=tuple(map(str, range(found.table.classes))),
    )
