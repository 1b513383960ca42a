"""Where two stages part: the first layer that gives something else, or the one that loses most.

The layers are those of the exported graph, one for each of its activation quantizers. Torch stages
are looked into as they run; an artefact is cut off after each layer and run by its own runtime.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

from embridge.benchmarks.artefact_cuts import LayerValues, executorch_values, litert_values
from embridge.device.package import Package
from embridge.quantize.base_quantizer import Quantized
from embridge.quantize.errors import LoweringError
from embridge.quantize.layers import qnn
from embridge.quantize.passes import QUANTIZE

INSIDE: dict[str, Callable[[bytes, NDArray[np.float32]], list[LayerValues]]] = {
    "executorch-fp32": executorch_values,
    "executorch-int8": executorch_values,
    "tflite-fp32": litert_values,
    "tflite-int8": litert_values,
}
ROUNDING_SHARE = 0.01  # of codes that ties in float32 sums may move by 1
SAME_COSINE = 0.999999  # of float values that differ by rounding alone


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: path of the module that computes it, its operator, the grid of its codes."""

    name: str
    operator: str
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of two stages, over some windows.

    codes_differ: share of its codes, None unless both are int8; max_lsb: largest difference
    same_grid: scale and zero point are equal; angle_deg: mean over windows, between the two outputs
    """

    layer: str
    operator: str
    codes_differ: float | None
    max_lsb: int | None
    same_grid: bool | None
    cosine_mean: float
    cosine_min: float
    angle_deg: float

    @property
    def differs(self) -> bool:
        """In codes or in their grid, or in float by more than rounding."""
        if self.codes_differ is None:
            return not self.cosine_min >= SAME_COSINE
        return self.codes_differ > 0 or not self.same_grid

    @property
    def beyond_rounding(self) -> bool:
        """Differs by more than what sums in float32 may move at a tie."""
        if self.codes_differ is None or self.max_lsb is None:
            return self.differs
        return self.max_lsb > 1 or self.codes_differ > ROUNDING_SHARE or not self.same_grid


@dataclass(frozen=True, slots=True)
class Divergence:
    """What a walk over all layers found.

    layer: the first that differs by more than rounding ("first beyond rounding"), or else at all
    ("first that differs"); between float and int8, where every layer does, the one that adds the
    largest angle ("largest loss"); None when none differs
    """

    layer: LayerRow | None
    criterion: str
    angle_added_deg: float | None
    windows: int
    table: tuple[LayerRow, ...]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layer": self.layer.layer if self.layer else None,
            "operator": self.layer.operator if self.layer else None,
            "criterion": self.criterion,
            "codes_differ": self.layer.codes_differ if self.layer else None,
            "max_lsb": self.layer.max_lsb if self.layer else None,
            "angle_added_deg": self.angle_added_deg,
            "windows": self.windows,
            "table": [asdict(row) for row in self.table],
        }


@dataclass(frozen=True)
class Networks:
    """A package with its torch networks and the graph exported from the fake-quantized one."""

    package: Package
    encoder: Quantized
    program: ExportedProgram


def first_diverging_layer(
    networks: Networks, a: str, b: str, windows: NDArray[np.float32]
) -> Divergence:
    """Compare two stages layer by layer on windows (N, C, T).

    Raises LoweringError when one of them cannot be looked into.
    """
    values = (stage_values(networks, stage, windows) for stage in (a, b))
    return diverge(layers_of(networks.program), *values)


def diverge(layers: list[Layer], a: list[LayerValues], b: list[LayerValues]) -> Divergence:
    """Compare what two stages give, one entry per layer each."""
    table = tuple(map(compare_layer, layers, a, b))
    windows = len(a[0].values)
    if any((x.scale is None) != (y.scale is None) for x, y in zip(a, b, strict=True)):
        added = np.diff([row.angle_deg for row in table], prepend=0.0)
        worst = int(added.argmax())
        return Divergence(table[worst], "largest loss", float(added[worst]), windows, table)
    first = next((row for row in table if row.differs), None)
    beyond = next((row for row in table if row.beyond_rounding), None)
    criterion = "first beyond rounding" if beyond else "first that differs"
    return Divergence(beyond or first, criterion, None, windows, table)


def compare_layer(layer: Layer, a: LayerValues, b: LayerValues) -> LayerRow:
    """One layer of two stages."""
    angle = _angles(_real(a), _real(b))
    cosine = np.cos(angle)
    row = LayerRow(
        layer=layer.name,
        operator=layer.operator,
        codes_differ=None,
        max_lsb=None,
        same_grid=None,
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        angle_deg=float(np.degrees(angle).mean()),
    )
    if a.scale is None or b.scale is None:
        return row
    differ = np.abs(a.values.astype(np.int16) - b.values.astype(np.int16))
    same_scale = np.float32(a.scale) == np.float32(b.scale)
    return replace(
        row,
        codes_differ=float((differ > 0).mean()),
        max_lsb=int(differ.max()),
        same_grid=bool(same_scale and a.zero_point == b.zero_point),
    )


def _real(layer: LayerValues) -> NDArray[np.float64]:
    """(N, C * T) values; of codes the direction is enough, so the scale is left out."""
    return layer.values.astype(np.float64) - layer.zero_point


def _angles(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle between matching rows, in radians, exact also when it is small; 0 between zeros."""
    unit_a, unit_b = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b)
    )
    apart, together = (np.linalg.norm(unit_a + sign * unit_b, axis=1) for sign in (-1, 1))
    return np.asarray(2 * np.arctan2(apart, together))


def stage_values(networks: Networks, stage: str, windows: NDArray[np.float32]) -> list[LayerValues]:
    """What every layer of a stage gives for windows (N, C, T).

    Raises LoweringError when the stage cannot be looked into, or has other layers than the graph.
    """
    layers, twin = layers_of(networks.program), networks.encoder.twin
    if stage == "graph":
        found = graph_values(networks.program, windows)
    elif stage == "fakequant":
        values = module_values(twin, twin, windows)
        found = [_codes(value, layer) for value, layer in zip(values, layers, strict=True)]
    elif stage == "float":
        values = module_values(networks.encoder.float_encoder, twin, windows)
        found = [LayerValues(value, None, 0) for value in values]
    elif stage in INSIDE:
        found = INSIDE[stage](networks.package.artefact(stage), windows)
    else:
        raise LoweringError(f"{stage}: its layers cannot be read; {', '.join(INSIDE)} can be")
    if len(found) != len(layers):
        raise LoweringError(
            f"{stage}: it has {len(found)} layers and the exported graph {len(layers)}, so they "
            "cannot be matched; lower it again from this graph"
        )
    return found


def layers_of(program: ExportedProgram) -> list[Layer]:
    """The layers of a graph: its activation quantizers and what computes their inputs."""
    return [
        Layer(*_source(node), float(node.args[1]), int(node.args[2]))
        for node in program.graph.find_nodes(op="call_function", target=QUANTIZE)
    ]


def _source(quantizer: Node) -> tuple[str, str]:
    """(path of the module, operator) of what a quantizer reads."""
    (source,) = quantizer.all_input_nodes
    if source.op == "placeholder":
        return _path(quantizer), "quantize"
    operator = str(source.target).split(".")[1]  # of "aten.conv2d.default"
    return _path(source) or _path(quantizer).removesuffix(".1"), operator


def _path(node: Node) -> str:
    return str(list(node.meta["nn_module_stack"].values())[-1][0])


class _Recorder(Interpreter):
    """Runs a graph and keeps the codes of every activation quantizer."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.module())
        self.codes: list[NDArray[np.generic]] = []

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n.target is QUANTIZE:
            self.codes.append(value.flatten().numpy())  # 1 C 1 T -> C*T
        return value


def graph_values(program: ExportedProgram, windows: NDArray[np.float32]) -> list[LayerValues]:
    """The codes of every quantizer of the exported graph, run by torch; windows: (N, C, T)."""
    recorder, rows = _Recorder(program), []
    for window in windows:
        recorder.codes = []
        with torch.inference_mode():
            recorder.run(torch.from_numpy(window)[None, :, None])
        rows.append(recorder.codes)
    return [
        LayerValues(np.stack(values), layer.scale, layer.zero_point)
        for values, layer in zip(zip(*rows, strict=True), layers_of(program), strict=True)
    ]


def module_values(
    model: nn.Module, twin: nn.Module, windows: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """What `model` gives where `twin` has its activation quantizers, (N, C * T) per layer.

    Raises LoweringError when `model` has no module of that name.
    """
    kinds = (qnn.QuantReLU, qnn.QuantIdentity)
    paths = [path for path, module in twin.named_modules() if isinstance(module, kinds)]
    if missing := set(paths) - dict(model.named_modules()).keys():
        raise LoweringError(
            f"the float network has no module {min(missing)!r}, so its layers cannot be matched; "
            "look at the pair of fakequant and graph"
        )
    seen: list[NDArray[np.float32]] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(output.flatten().numpy())  # 1 C 1 T -> C*T

    hooks = [model.get_submodule(path).register_forward_hook(keep) for path in paths]
    rows = []
    try:
        for window in windows:
            seen = []
            with torch.inference_mode():
                model(torch.from_numpy(window)[None, :, None])  # 1 C 1 T
            rows.append(seen)
    finally:
        for hook in hooks:
            hook.remove()
    return [np.stack(values) for values in zip(*rows, strict=True)]


def _codes(values: NDArray[np.float32], layer: Layer) -> LayerValues:
    """Fake-quantized values as the codes they stand for."""
    codes = np.rint(values.astype(np.float64) / layer.scale) + layer.zero_point
    return LayerValues(codes.astype(np.int8), layer.scale, layer.zero_point)
