"""ONNX in QCDQ form: float operators between QuantizeLinear and DequantizeLinear, which any ONNX
runtime reads and ONNX Runtime fuses into integer kernels.

Written node by node: the graph holds six kinds of operator, and torch's own exporter would leave
weights and biases in float.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from embridge.quantize.audit import Call, Value
from embridge.quantize.errors import LoweringError
from embridge.quantize.graph_check import CONVOLUTION
from embridge.quantize.passes import DEQUANTIZE, DEQUANTIZE_WEIGHT, QUANTIZE, fold_weights
from embridge.quantize.silence import quiet
from embridge.quantize.targets.extras import need

OPSET = 17
IR_VERSION = 8  # both of 2022, so that older runtimes read the file too
INPUT, OUTPUT = "window", "embedding"
INT8, INT32 = np.iinfo(np.int8), np.iinfo(np.int32)
# Where operators take scales: those belong to a quantized tensor's type, they are not data.
SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearGlobalAveragePool": (1, 3),
}


def lower(graph: ExportedProgram) -> bytes:
    """ONNX model, (1, C, 1, T) float32 in and (1, D, 1, 1) float32 out; equal bytes each time.

    From a quantized graph: int8 weights per channel, int32 biases with scale input x weight. Raises
    ConfigError without onnx, LoweringError for an operator that has no translation here.
    """
    need("onnx", "onnx", "onnx", "onnxruntime")
    import onnx

    model = _Writer(fold_weights(graph)).model()
    with quiet():
        onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def calls(artefact: bytes) -> Iterator[Call]:
    """The operators that ONNX Runtime makes of the model, with the types that it tells.

    At its extended level: the level above only moves channels, by what the CPU likes.
    """
    need("onnx", "onnx", "onnx", "onnxruntime")
    model = _optimised(artefact)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    types = _types(model)
    for node in model.graph.node:
        scales = SCALES.get(node.op_type, ())
        operands = [name for i, name in enumerate(node.input) if name and i not in scales]
        values = ([Value(types[n], n in ends) for n in names] for names in (operands, node.output))
        yield Call(node.op_type, *values)


def facts(artefact: bytes) -> dict[str, Any]:
    """What a runtime must read."""
    import onnx

    model = onnx.load_from_string(artefact)
    return {"opset": model.opset_import[0].version, "ir_version": model.ir_version}


def _optimised(artefact: bytes) -> Any:
    """The model that the runtime writes back once it has fused what it can."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        _session(artefact, options)
        return onnx.load(path)


def _types(model: Any) -> dict[str, str]:
    """Type of every value. The runtime infers them, its own operators included, for outputs only,
    so every value becomes one in a copy that is not optimised again.
    """
    import onnx
    import onnxruntime

    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    every.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in model.graph.node for name in node.output
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _session(every.SerializeToString(), options)
    names = {
        constant.name: onnx.TensorProto.DataType.Name(constant.data_type)
        for constant in model.graph.initializer
    } | {
        value.name: value.type.removeprefix("tensor(").removesuffix(")")
        for value in (*session.get_inputs(), *session.get_outputs())
    }
    return {name: {"float": "float32"}.get(t.lower(), t.lower()) for name, t in names.items()}


def _session(model: bytes, options: Any) -> Any:
    import onnxruntime

    with quiet():  # warns of files that belong to one version of the runtime, and of unused values
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _Writer:
    """One exported graph, translated node by node; most values keep the names of its nodes."""

    def __init__(self, program: ExportedProgram) -> None:
        self._graph = program.graph_module.graph
        self._stored = {
            spec.arg.name: program.state_dict[spec.target].detach().numpy()
            for spec in program.graph_signature.input_specs
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        }
        inputs = self._graph.find_nodes(op="placeholder")
        (self._source,) = (node for node in inputs if node.name not in self._stored)
        (self._sink,) = self._graph.output_node().args[0]
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._writers: dict[Any, Callable[[Node], None]] = {
            QUANTIZE: lambda node: self._grid("QuantizeLinear", node),
            DEQUANTIZE: lambda node: self._grid("DequantizeLinear", node),
            DEQUANTIZE_WEIGHT: self._weight,
            CONVOLUTION: self._convolution,
            torch.ops.aten.mean.dim: self._mean,
            torch.ops.aten.relu.default: lambda node: self._add("Relu", node, node.args[0]),
        }

    def model(self) -> Any:
        """The ONNX model, not checked yet."""
        from onnx import TensorProto, helper, numpy_helper

        for node in (node for node in self._graph.nodes if node.op == "call_function"):
            if node.target not in self._writers:
                raise _untranslated(node)
            self._writers[node.target](node)
        source, sink = (
            helper.make_tensor_value_info(
                self._name(node), TensorProto.FLOAT, list(node.meta["val"].shape)
            )
            for node in (self._source, self._sink)
        )
        constants = [numpy_helper.from_array(array, n) for n, array in self._constants.items()]
        return helper.make_model(
            helper.make_graph(self._nodes, "embridge", [source], [sink], constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="embridge",
        )

    def _name(self, node: Node) -> str:
        """A node's value in the model; a stored tensor becomes a constant when it is asked for."""
        if node.name in self._stored:
            return self._constant(node.name, self._stored[node.name])
        return {self._source: INPUT, self._sink: OUTPUT}.get(node, node.name)

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self._constants[name] = array
        return name

    def _add(self, op: str, node: Node, *operands: Any, **attributes: Any) -> None:
        """An ONNX node that computes `node`; operands are fx nodes or names of ONNX values."""
        from onnx import helper

        names = [o if isinstance(o, str) else self._name(o) for o in operands]
        out = self._name(node)
        self._nodes.append(helper.make_node(op, names, [out], name=node.name, **attributes))

    def _grid(self, op: str, node: Node) -> None:
        """Quantize or dequantize activations; QuantizeLinear clips to the range of int8 only."""
        x, scale, zero, low, high, _ = node.args
        if (low, high) != (INT8.min, INT8.max):
            raise LoweringError(
                f"onnx: expected activations of 8 bits, got codes {low}..{high}; "
                "choose a recipe with 8 bits, or leave the target out"
            )
        scale = self._constant(f"{node.name}.scale", np.array(scale, np.float32))
        zero = self._constant(f"{node.name}.zero", np.array(zero, np.int8))
        self._add(op, node, x, scale, zero)

    def _weight(self, node: Node) -> None:
        args: list[Any] = list(node.args)
        codes, scale, zero, axis, *_ = args
        zero_codes = self._constant(zero.name, self._stored[zero.name].astype(np.int8))
        self._add("DequantizeLinear", node, codes, scale, zero_codes, axis=axis)

    def _convolution(self, node: Node) -> None:
        defaults: list[Any] = [None, [1, 1], [0, 0], [1, 1], 1]  # bias .. groups
        args: list[Any] = list(node.args)
        x, weight, bias, stride, padding, dilation, groups = args + defaults[len(args) - 2 :]
        if (x.target, weight.target) == (DEQUANTIZE, DEQUANTIZE_WEIGHT) and bias is not None:
            bias = self._bias(node, bias, x.args[1] * self._stored[weight.args[1].name])
        operands = [x, weight, *([] if bias is None else [bias])]
        attributes = {"strides": stride, "pads": [*padding, *padding], "dilations": dilation}
        self._add("Conv", node, *operands, **attributes, group=groups)

    def _bias(self, node: Node, bias: Node, scale: NDArray[np.float32]) -> str:
        """The bias of a quantized convolution as int32 codes and DequantizeLinear; scale: (D,)."""
        from onnx import helper

        codes = np.rint(self._stored[bias.name] / scale.astype(np.float64))
        if np.abs(codes).max() > INT32.max:
            raise LoweringError(
                f"onnx: {bias.name} is beyond int32 at scale input x weight; "
                "a channel's weights are all near zero: train the encoder again"
            )
        operands = [
            self._constant(f"{bias.name}.codes", codes.astype(np.int32)),
            self._constant(f"{bias.name}.scale", scale.astype(np.float32)),
            self._constant(f"{bias.name}.zero", np.zeros(len(codes), np.int32)),
        ]
        self._nodes.append(helper.make_node("DequantizeLinear", operands, [bias.name], axis=0))
        return bias.name

    def _mean(self, node: Node) -> None:
        x, axes, keep = node.args
        if (axes, keep) != ([2, 3], True):
            raise _untranslated(node)
        self._add("GlobalAveragePool", node, x)


def _untranslated(node: Node) -> LoweringError:
    return LoweringError(
        f"onnx: expected conv2d, relu or mean over (2, 3), got {node.target} with {node.args[1:]}; "
        "leave the target out, or write its translation in quantize/targets/onnx.py"
    )
