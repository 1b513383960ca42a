"""What an artefact really computes: its operators with their dtypes, read from its own bytes.

Tool chains fall back to float without a word, so "int8" is decided here: every operator of an
integer artefact must read and write integers. Only a .pte may convert from float at its input and
to float at its output.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from embridge.device.manifest import STAGE_FILES
from embridge.quantize.errors import LoweringError
from embridge.quantize.silence import quiet

INTEGERS = frozenset(
    {
        "bool",
        "int8",
        "uint8",
        "int32",
        "int64",
        "qint8",
        "quint8",
        "qint32",
        "qcint4",
        "qcint8",
        "qcint32",
    }
)  # q: with a scale, qc: with one per channel
CONVERSIONS = frozenset(
    {
        "Convert",
        "quantized_decomposed::quantize_per_tensor",
        "quantized_decomposed::dequantize_per_tensor",
    }
)
NO_VALUE = 2**32 - 1  # XNNPACK's id of an operand that is not there


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Equal operators of an artefact: what they read and write, and how many there are.

    dtype_in: of all operands, constants included, in order
    integer: nothing in it is float, or it converts at an end of a .pte
    """

    op: str
    dtype_in: str
    dtype_out: str
    count: int
    integer: bool


@dataclass(frozen=True, slots=True)
class _Value:
    dtype: str
    external: bool  # an input or output of the artefact


@dataclass(frozen=True, slots=True)
class _Call:
    op: str
    inputs: list[_Value]
    outputs: list[_Value]

    def is_integer(self) -> bool:
        floats = [v for v in (*self.inputs, *self.outputs) if v.dtype not in INTEGERS]
        return not floats or (self.op in CONVERSIONS and all(v.external for v in floats))


def audit(stage: str, artefact: bytes) -> tuple[AuditRow, ...]:
    """The operators of an artefact, equal ones counted, in the order they first run.

    Raises LoweringError for a delegate that cannot be read.
    """
    with quiet():
        calls = _READERS[Path(STAGE_FILES[stage]).suffix](artefact)
        rows = Counter(
            (
                call.op,
                ", ".join(v.dtype for v in call.inputs),
                ", ".join(v.dtype for v in call.outputs),
                call.is_integer(),
            )
            for call in calls
        )
    return tuple(AuditRow(op, i, o, count, ok) for (op, i, o, ok), count in rows.items())


def require_integer(stage: str, rows: tuple[AuditRow, ...]) -> None:
    """Raise LoweringError, naming them, when any operator computes in float."""
    floats = [f"{r.count} {r.op} ({r.dtype_in} -> {r.dtype_out})" for r in rows if not r.integer]
    if floats:
        raise LoweringError(
            f"{stage}: expected integer operators only, but {'; '.join(floats)} stayed in float; "
            "give each a quantized input and output in the encoder, or take it out of the encoder"
        )


def _tflite_calls(artefact: bytes) -> Iterator[_Call]:
    from ai_edge_litert import schema_py_generated as schema

    ops = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    dtypes = {
        code: name.lower()
        for name, code in vars(schema.TensorType).items()
        if isinstance(code, int)
    }
    model = schema.ModelT.InitFromPackedBuf(artefact, 0)
    for graph in model.subgraphs:
        ends = {*graph.inputs, *graph.outputs}

        def values(ids: Any, graph: Any = graph, ends: set[int] = ends) -> list[_Value]:
            return [_Value(dtypes[graph.tensors[i].type], i in ends) for i in ids if i >= 0]

        for call in graph.operators:
            code = model.operatorCodes[call.opcodeIndex]
            op = ops[max(code.builtinCode, code.deprecatedBuiltinCode)]
            yield _Call(op, values(call.inputs), values(call.outputs))


def _pte_calls(artefact: bytes) -> Iterator[_Call]:
    from executorch.exir._serialize import _deserialize_pte_binary
    from executorch.exir.schema import DelegateCall, KernelCall

    program = _deserialize_pte_binary(artefact).program
    (plan,) = program.execution_plan
    for instruction in (i for chain in plan.chains for i in chain.instructions):
        call = instruction.instr_args
        if isinstance(call, KernelCall):
            yield _kernel_call(plan, call)
        elif isinstance(call, DelegateCall):
            delegate = plan.delegates[call.delegate_index]
            if delegate.id != "XnnpackBackend":
                raise LoweringError(f"delegate {delegate.id}: cannot tell what it computes")
            yield _Call(f"delegate {delegate.id}", [], [])
            yield from _xnnpack_calls(program.backend_delegate_data[delegate.processed.index].data)


def _kernel_call(plan: Any, call: Any) -> _Call:
    """An operator that XNNPACK did not take; the last tensor argument is its output."""
    from executorch.exir.schema import Tensor

    tensors = [
        _Value(plan.values[i].val.scalar_type.name.lower(), i in (*plan.inputs, *plan.outputs))
        for i in call.args
        if isinstance(plan.values[i].val, Tensor)
    ]
    return _Call(plan.operators[call.op_index].name, tensors[:-1], tensors[-1:])


def _xnnpack_calls(payload: bytes) -> Iterator[_Call]:
    graph = _xnnpack_graph(payload)
    values = {}
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"].get("tensor_value", value["xvalue_union"])
        dtype = tensor["datatype"].removeprefix("xnn_datatype_")
        values[tensor["id_out"]] = _Value(dtype, tensor["external_id"] != NO_VALUE)
    for node in graph["xnodes"]:
        operands = {
            name: values[operand]
            for name, operand in node["xnode_union"].items()
            if name.endswith("_id") and operand != NO_VALUE
        }
        yield _Call(
            node["xnode_union_type"].removeprefix("XNN"),
            [v for name, v in operands.items() if not name.startswith("output")],
            [v for name, v in operands.items() if name.startswith("output")],
        )


def _xnnpack_graph(payload: bytes) -> Any:
    """The delegate's flatbuffer as JSON; ExecuTorch ships its schema and the flatc to read it."""
    from executorch.backends.xnnpack import serialization
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as folder:
        schema, graph = Path(folder, "schema.fbs"), Path(folder, "graph.bin")
        schema.write_bytes(resources.files(serialization).joinpath("schema.fbs").read_bytes())
        graph.write_bytes(payload[start : start + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(graph), ["--raw-binary"])
        text = graph.with_suffix(".json").read_text()
    return json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", text))


_READERS: dict[str, Callable[[bytes], Iterator[_Call]]] = {
    ".pte": _pte_calls,
    ".tflite": _tflite_calls,
}
