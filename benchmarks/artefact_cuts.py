"""Artefacts cut off after each of their layers, to see what every layer gives.

A cut changes nothing before its end: weights, scales and operators are the bytes that ship, and the
artefact's own runtime runs them. It shows what an artefact computes, whatever it was made from.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.benchmarks.xnnpack_cut import XnnpackGraph
from embridge.device.runtimes import ExecutorchEncoder, LiteRtEncoder
from embridge.quantize.errors import LoweringError
from embridge.quantize.silence import quiet

# Operators that begin a layer; any other (a view, a clamp) belongs to the layer before it.
BEGIN_LITERT = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "SUM", "ADD")
BEGIN_XNNPACK = ("Conv2d", "DepthwiseConv2d", "FullyConnected", "GlobalAvgPooling2d", "Add")


@dataclass(frozen=True, slots=True)
class Cut:
    """An artefact that ends after one layer.

    dims: of its output, (1, C, 1, T) or (1, 1, T, C); scale: of its codes, None in float
    """

    data: bytes
    dims: tuple[int, ...]
    scale: float | None
    zero_point: int


@dataclass(frozen=True, slots=True)
class LayerValues:
    """What one layer gives: (N, C * T) int8 codes, or float32 values where `scale` is None."""

    values: NDArray[np.generic]
    scale: float | None
    zero_point: int


def litert_values(artefact: bytes, windows: NDArray[np.float32]) -> list[LayerValues]:
    """windows: (N, C, T) -> what the input and every layer of a .tflite give."""
    found: list[LayerValues] = []
    for cut in litert_cuts(artefact):
        encoder = _OpenLiteRt(cut.data)
        one = encoder.embed if cut.scale is None else encoder.codes
        if not found:
            found.append(encoder.inputs(windows))
        found.append(_by_channel(cut, (one(window) for window in windows)))
        encoder.close()
    return found


def executorch_values(artefact: bytes, windows: NDArray[np.float32]) -> list[LayerValues]:
    """windows: (N, C, T) -> what the input and every layer of a .pte give.

    Raises LoweringError when the program is not one XNNPACK delegate and nothing else.
    """
    found: list[LayerValues] = []
    for cut in executorch_cuts(artefact):
        encoder = ExecutorchEncoder(cut.data, scale=cut.scale, zero_point=cut.zero_point)
        one = encoder.embed if cut.scale is None else encoder.codes
        found.append(_by_channel(cut, (one(window) for window in windows)))
        encoder.close()
    return found


def _by_channel(cut: Cut, outputs: Iterable[NDArray[np.generic]]) -> LayerValues:
    """Outputs in either of both layouts -> (N, C * T)."""
    values = np.stack(list(outputs))  # N C*T, or N T*C
    if cut.dims[1] == 1:  # 1 1 T C
        values = values.reshape(-1, *cut.dims[2:]).swapaxes(1, 2).reshape(values.shape)
    return LayerValues(values, cut.scale, cut.zero_point)


class _OpenLiteRt(LiteRtEncoder):
    """A LiteRT encoder that shows what it feeds the interpreter."""

    def inputs(self, windows: NDArray[np.float32]) -> LayerValues:
        """windows: (N, C, T) -> the interpreter's input for each."""
        fed = []
        for window in windows:
            self.embed(window)
            fed.append(self._interpreter.get_tensor(self._source)[0, 0].T.ravel())  # 1 1 T C -> C*T
        scale = float(self._input_scale) if fed[0].dtype == np.int8 else None
        return LayerValues(np.stack(fed), scale, int(self._input_zero_point))


def litert_cuts(artefact: bytes) -> Iterator[Cut]:
    """A .tflite after each of its layers."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    ops = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    model = schema.ModelT.InitFromPackedBuf(artefact, 0)
    (graph,) = model.subgraphs
    codes = [model.operatorCodes[op.opcodeIndex] for op in graph.operators]
    names = [ops[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in codes]
    operators, model.signatureDefs = graph.operators, []  # signatures name the old output
    for end in _ends(names, BEGIN_LITERT):
        (last,) = operators[end - 1].outputs
        tensor = graph.tensors[last]
        integer = tensor.type == schema.TensorType.INT8
        graph.operators, graph.outputs = operators[:end], [last]
        builder = Builder(len(artefact))
        builder.Finish(model.Pack(builder), b"TFL3")
        yield Cut(
            bytes(builder.Output()),
            tuple(int(n) for n in tensor.shape),
            float(tensor.quantization.scale[0]) if integer else None,
            int(tensor.quantization.zeroPoint[0]) if integer else 0,
        )


def executorch_cuts(artefact: bytes) -> Iterator[Cut]:
    """A .pte after it has taken its input, as int8 or in its own layout, and after each layer."""
    with quiet():
        from executorch.exir._serialize import _deserialize_pte_binary, _serialize_pte_binary

        file = _deserialize_pte_binary(artefact)
    (plan,) = file.program.execution_plan
    if len(plan.delegates) != 1 or plan.operators:
        raise LoweringError(
            f"the .pte has {len(plan.delegates)} delegates and {len(plan.operators)} other "
            "operators, expected one XNNPACK delegate; its layers cannot be told apart"
        )
    graph = XnnpackGraph(file.program.backend_delegate_data[0].data)
    for end in _ends(graph.names, BEGIN_XNNPACK):
        cut, shorter = graph.cut(end), copy.deepcopy(file)
        shorter.program.backend_delegate_data[0].data = cut.payload
        _grow_output(shorter.program.execution_plan[0], cut.dims)
        with quiet():
            data = bytes(_serialize_pte_binary(shorter, extract_delegate_segments=True))
        yield Cut(data, cut.dims, cut.scale, cut.zero_point)


def _ends(names: list[str], begin: tuple[str, ...]) -> list[int]:
    """Where each layer ends: one past its last operator. The first operator begins the first."""
    starts = [number for number, name in enumerate(names) if number and name in begin]
    return [*starts, len(names)]


def _grow_output(plan: Any, dims: tuple[int, ...]) -> None:
    """Give a program's output these dims, and memory of its own after all other values."""
    output = plan.values[plan.outputs[0]].val
    output.sizes = list(dims)
    place = output.allocation_info
    place.memory_offset_low = -(-plan.non_const_buffer_sizes[place.memory_id] // 16) * 16
    plan.non_const_buffer_sizes[place.memory_id] = (
        place.memory_offset_low + 4 * int(np.prod(dims))  # float32
    )
