"""Quantized encoder -> one exported graph that every backend starts from.

Each brevitas layer is exchanged for a plain one that holds the same numbers and says what it does
in `quantized_decomposed` operators, the dialect that the XNNPACK, LiteRT and Arm tool chains read.
Weights stay float values on their grid, followed by quantize and dequantize; a backend that wants
int8 constants calls `passes.fold_weights`. (`brevitas.export` is not used: it needs onnx, and its
graphs are ONNX or TorchScript.)
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from embridge.quantize.base_layers import WindowEncoder
from embridge.quantize.layers import qnn
from embridge.quantize.passes import clean, qd
from embridge.quantize.silence import quiet
from embridge.training.watch import WatchEncoder

Twin = TypeVar("Twin", bound=nn.Module)


def export_graph(twin: WatchEncoder | WindowEncoder) -> ExportedProgram:
    """The graph of one window, (1, C, 1, T) float32 -> float32 = codes * scale.

    The output is (1, D, 1, 1), or (1, M * D) for the queries of `base`. The only quantization
    operators are `quantized_decomposed.*`; `twin` is left as it was.
    """
    model = plain_copy(twin)
    window = torch.zeros(1, twin.shape.channels, 1, twin.shape.window)
    with quiet(), torch.no_grad():
        program = torch.export.export(model, (window,), strict=False)
    clean(program)
    return program


def plain_copy(twin: Twin) -> Twin:
    """A copy of `twin` in plain layers: the same values to the bit, several times as fast."""
    model = copy.deepcopy(twin).eval()
    _exchange(model, {})
    return model


def _exchange(module: nn.Module, done: dict[nn.Module, nn.Module]) -> None:
    """Exchange the brevitas layers in `module`; a shared layer stays shared."""
    for name, child in list(module._modules.items()):  # named_children() skips a second mention
        if child is None:
            continue
        plain = done.get(child) or _plain(child)
        if plain is None:
            _exchange(child, done)
        else:
            done[child] = plain
            setattr(module, name, plain)


def _plain(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, qnn.QuantConv2d):
        return _Conv(layer)
    if isinstance(layer, qnn.QuantLinear):
        return _Linear(layer)
    if isinstance(layer, qnn.QuantReLU):
        return nn.Sequential(nn.ReLU(), _Grid(layer))
    if isinstance(layer, qnn.QuantIdentity):
        return _Grid(layer)
    return None


class _Weighted(nn.Module):
    """Per-channel symmetric weights and float bias."""

    bias: Tensor

    def __init__(self, layer: qnn.QuantConv2d | qnn.QuantLinear) -> None:
        super().__init__()
        weight = layer.quant_weight()
        self.high = 2 ** (int(weight.bit_width) - 1) - 1  # narrow range: -high..high
        self.register_buffer("grid", weight.value.detach().clone())
        self.register_buffer("scale", weight.scale.detach().flatten().clone())
        self.register_buffer("zero", torch.zeros(len(weight.value), dtype=torch.int64))
        self.register_buffer("bias", layer.bias.detach().clone())

    def weight(self) -> Tensor:
        """(D, ...), quantized and dequantized."""
        grid = (self.scale, self.zero, 0, -self.high, self.high, torch.int8)  # axis 0: D
        codes = qd.quantize_per_channel.default(self.grid, *grid)
        return qd.dequantize_per_channel.default(codes, *grid)  # type: ignore[no-any-return]


class _Conv(_Weighted):
    """Convolution."""

    def __init__(self, layer: qnn.QuantConv2d) -> None:
        super().__init__(layer)
        self.stride, self.groups = layer.stride, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, 1, T) -> (B, D, 1, T')."""
        return F.conv2d(x, self.weight(), self.bias, self.stride, groups=self.groups)


class _Linear(_Weighted):
    """Linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C) -> (..., D)."""
        return F.linear(x, self.weight(), self.bias)


class _Grid(nn.Module):
    """Per-tensor activations; unsigned codes are moved by 128 to be int8 for every backend."""

    def __init__(self, layer: qnn.QuantReLU | qnn.QuantIdentity) -> None:
        super().__init__()
        quantizer = layer.act_quant
        bits = int(quantizer.bit_width())
        self.scale = float(quantizer.scale().detach())
        self.low = -(2 ** (bits - 1)) if quantizer.is_signed else -128
        self.zero = int(quantizer.zero_point()) + (0 if quantizer.is_signed else -128)
        self.high = self.low + 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """The nearest values on the grid."""
        grid = (self.scale, self.zero, self.low, self.high, torch.int8)
        codes = qd.quantize_per_tensor.default(x, *grid)
        return qd.dequantize_per_tensor.default(codes, *grid)  # type: ignore[no-any-return]
