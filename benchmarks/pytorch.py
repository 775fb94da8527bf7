"""The tables as idiomatic PyTorch modules. Importing this module requires torch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from alexnet_jax.network.table import (
    LRN,
    AvgPool,
    Conv,
    Dropout,
    Layer,
    LayerShape,
    MapNorm,
    MaxPool,
    ReLU,
    Table,
    shapes,
)


class Network(nn.Module):
    """A network from images [batch, channels, height, width] to logits [batch, classes], with columns as groups."""

    def __init__(self, table: Table):
        super().__init__()
        self.layers = nn.ModuleList()
        shared = True  # whether all columns read the same input, as at the image
        for shape in shapes(table):
            parts = [after(part, table.columns) for part in shape.spec.after]
            self.layers.append(nn.Sequential(*linear(shape, shared), *parts))
            shared = shape.spec.crossing == "sum"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for layer in self.layers:
            x = layer(x)
        return x


def linear(shape: LayerShape, shared: bool, *, bias: bool = True) -> list[nn.Module]:
    """Return the convolution or matrix of a layer. Raises ValueError for a dense layer of two columns without a crossing."""
    spec: Layer = shape.spec
    columns, out, inputs = shape.kernel[:3]
    if isinstance(spec, Conv) and spec.local:
        return [Local(shape, bias=bias)]
    if isinstance(spec, Conv):
        groups = columns if spec.crossing is None and not shared else 1
        before, behind = spec.padding
        pad: list[nn.Module] = [nn.ZeroPad2d((before, behind, before, behind))] if before != behind else []
        padding = before if before == behind else 0
        maps = (inputs * groups, columns * out)
        return [*pad, nn.Conv2d(*maps, spec.kernel, spec.stride, padding, groups=groups, bias=bias)]
    if spec.crossing is None and columns > 1 and not shared:
        raise ValueError(f"{spec.name}: a dense layer of two columns without a crossing")
    summed = spec.crossing == "sum"
    units = (inputs * columns, out) if summed else (inputs, columns * out)
    return [nn.Flatten(), nn.Linear(*units, bias=bias)]


def after(part: Any, columns: int) -> nn.Module:
    """Return a part of a layer as a module. Raises ValueError for a part that no measured network has."""
    match part:
        case ReLU():
            return nn.ReLU(inplace=True)
        case MaxPool():
            return nn.MaxPool2d(part.window, part.stride, ceil_mode=True)
        case AvgPool():
            return nn.AvgPool2d(part.window, part.stride, ceil_mode=True, count_include_pad=False)
        case MapNorm():
            return WithinMaps(part)
        case LRN(across=False):
            return ColumnLRN(part, columns)
        case Dropout():
            return nn.Dropout(part.probability)
    raise ValueError(f"{part} is not part of a measured network")


class ColumnLRN(nn.Module):
    """LRN within each column. torch divides alpha by the number of maps; the paper does not."""

    def __init__(self, part: LRN, columns: int):
        super().__init__()
        self.part, self.columns = part, columns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize x [batch, maps, height, width], the maps of column 0 first."""
        one = lambda x: functional.local_response_norm(  # noqa: E731
            x, self.part.size, self.part.alpha * self.part.size, self.part.beta, self.part.k
        )
        batch, maps, *image = x.shape
        if x.is_contiguous():  # each column becomes an image, without a copy
            return one(x.view(batch * self.columns, maps // self.columns, *image)).view_as(x)
        return torch.cat([one(part) for part in x.chunk(self.columns, 1)], 1)


class WithinMaps(nn.Module):
    """Normalization within each map, by the sum of squares in a window."""

    def __init__(self, part: MapNorm):
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize x [batch, maps, height, width]."""
        size, part = self.part.size, self.part
        squares = functional.avg_pool2d(x * x, size, 1, size // 2, divisor_override=1)
        return x * (part.k + part.alpha * squares) ** -part.beta


class Local(nn.Module):
    """A convolution with unshared weights, for which PyTorch has no module: unfold and a product per output pixel."""

    def __init__(self, shape: LayerShape, *, bias: bool):
        super().__init__()
        spec: Conv = shape.spec  # type: ignore[assignment]
        self.spec, self.convolved = spec, shape.convolved
        out, inputs, k, _, height, width = shape.kernel[1:]
        self.weight = nn.Parameter(0.04 * torch.randn(height * width, out, inputs * k * k))
        self.bias = nn.Parameter(torch.zeros(shape.convolved)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve x [batch, maps, height, width], padded equally on all sides."""
        patches = functional.unfold(x, self.spec.kernel, padding=self.spec.padding[0], stride=self.spec.stride)
        sums = torch.bmm(self.weight, patches.permute(2, 1, 0))  # [pixels, out, batch]
        sums = sums.permute(2, 1, 0).reshape(len(x), *self.convolved)
        return sums if self.bias is None else sums + self.bias


def load(network: Network, table: Table, parameters: dict) -> None:
    """Copy NumPy parameters {layer: {'kernel', 'bias'}} into a network."""
    with torch.no_grad():
        for spec, layer in zip(table.layers, network.layers, strict=True):
            module = next(m for m in layer if isinstance(m, nn.Conv2d | nn.Linear | Local))
            kernel = torch.tensor(parameters[spec.name]["kernel"])
            if spec.crossing == "sum":
                kernel = kernel.transpose(0, 1)
            if isinstance(module, Local):
                kernel = kernel[0].permute(4, 5, 0, 1, 2, 3)
            module.weight.copy_(kernel.reshape(module.weight.shape))
            module.bias.copy_(torch.tensor(parameters[spec.name]["bias"]).reshape(module.bias.shape))


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEVICE_NAME = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"

if DEVICE.type == "cuda":  # as in jax: products in TF32, and autotuned cuDNN algorithms
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def wait(result: Any) -> None:
    """Wait until all dispatched work has been computed."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def training_step(
    table: Table, batch: int, precision: str, *, channels_last: bool, compiled: bool
) -> Callable[[], Any]:
    """Return a function that dispatches one step of SGD with momentum on fixed random images and returns the loss."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    height, width, channels = table.image
    network = Network(table).to(DEVICE, memory_format=layout)
    images = torch.randn(batch, channels, height, width, device=DEVICE).contiguous(memory_format=layout)
    labels = torch.randint(table.classes, (batch,), device=DEVICE)
    rule = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    run = torch.compile(network) if compiled else network

    def step() -> torch.Tensor:
        with _precision(precision):
            loss = functional.cross_entropy(run(images), labels)
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        return loss.detach()

    return step


def _precision(name: str) -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=name == "bfloat16")


def parts(table: Table, batch: int, precision: str, *, channels_last: bool) -> dict[str, Callable[[], Any]]:
    """Return {name: function that computes one part of the network and its gradients}, with the names of `ours.parts`."""
    found = {}
    columns, shared = table.columns, True
    time = partial(_with_gradients, precision=precision, channels_last=channels_last)
    for shape in shapes(table):
        spec, maps = shape.spec, shape.inputs[0]
        complete = shared or spec.crossing == "gather"
        module = nn.Sequential(*linear(shape, shared, bias=False))  # `ours` is also timed without a bias
        inputs = (batch, maps if complete else columns * maps, *shape.inputs[1:])
        found[spec.name] = time(module, inputs, images=spec is table.layers[0])
        size = (batch, columns * shape.convolved[0], *shape.convolved[1:])
        for part in spec.after:
            if isinstance(part, LRN | MapNorm):
                found[f"{spec.name} LRN"] = time(after(part, columns), size)
            elif isinstance(part, MaxPool | AvgPool):
                found[f"{spec.name} pool"] = time(after(part, columns), size)
                size = (*size[:2], *shape.outputs[1:])
        shared = spec.crossing == "sum"
    return found


def product(rows: int, precision: str) -> Callable[[], Any]:
    """Return a function that multiplies two square matrices."""
    a, b = (torch.randn(rows, rows, device=DEVICE, dtype=getattr(torch, precision)) for _ in range(2))
    return lambda: a @ b


def _with_gradients(
    module: nn.Module, shape: tuple[int, ...], *, precision: str, channels_last: bool, images: bool = False
) -> Callable[[], Any]:
    """Return a function that computes a module and its gradients, except that of the inputs if they are images."""
    layout = torch.channels_last if channels_last and len(shape) == 4 else torch.contiguous_format
    module = module.to(DEVICE, memory_format=layout)
    x = torch.randn(shape, device=DEVICE).contiguous(memory_format=layout).requires_grad_(not images)
    wanted = [*([] if images else [x]), *module.parameters()]

    def run() -> Any:
        with _precision(precision):
            y = module(x)
        return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return run
