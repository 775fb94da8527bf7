"""A placement: where the arrays of a network live on a mesh of devices, and the forward pass there.

`columns.Columns` and `hybrid.Hybrid` implement it. They are hashable, so `jax.jit` takes them as static arguments.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax.network.table import Table

Parameters = dict[str, dict[str, jax.Array]]
"""{layer: {'kernel': [columns, out, in, ...], 'bias': [columns, out, ...], or [out] after a sum over the columns}}."""
Masks = dict[str, jax.Array]
"""{layer: bool [columns, units, batch]}: dropout masks, True where a unit is kept."""


@dataclass(frozen=True)
class Placement(abc.ABC):
    """The placement of any network on one mesh."""

    mesh: Mesh

    @property
    @abc.abstractmethod
    def replicas(self) -> int:
        """Number of shares into which a batch is divided."""

    @property
    def slices(self) -> int:
        """Number of slices in which a training step works through each share of its batch."""
        return 1

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """Return the sharding of an array with this spec."""
        return NamedSharding(self.mesh, spec)

    @property
    def compiler_options(self) -> dict[str, int] | None:
        """Options of XLA for the programs that run the network.

        On a CPU, LLVM's third level of optimization takes twice the time of the second to compile a training step, and the
        step is not faster.
        """
        on_cpus = isinstance(self.mesh, Mesh) and self.mesh.devices.flat[0].platform == "cpu"
        return {"xla_backend_optimization_level": 2} if on_cpus else None

    def per_device(self, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
        """Return a function that runs `function` once per device, on its shards; all communication in it is explicit."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs)

    @abc.abstractmethod
    def check_fits(self, table: Table) -> None:
        """Raise UsageError unless the table divides over the mesh."""

    @abc.abstractmethod
    def parameter_specs(self, table: Table) -> dict[str, dict[str, PartitionSpec]]:
        """Return {layer: {'kernel': spec, 'bias': spec}}."""

    @abc.abstractmethod
    def mask_specs(self, table: Table) -> dict[str, PartitionSpec]:
        """Return the spec that a dropout mask of each layer would have, {layer: spec}."""

    @abc.abstractmethod
    def output_spec(self, table: Table) -> PartitionSpec:
        """Return the spec of the result of `forward`."""

    @abc.abstractmethod
    def forward(self, table: Table, parameters: Parameters, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Return logits [classes, batch] of images [channels, height, width, batch]; runs inside `per_device`.

        All arrays are one device's shards. Masks are given in training, None at test. Kernels are cast to the type of the
        images; biases, and sums over columns or devices, have at least 32 bits. If the last layer of the table is not a
        sum, the result is [own columns, maps or units, ..., batch].
        """
