"""ExecuTorch with XNNPACK: .pte for Linux-class boards."""

import json
import re
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from embridge.quantize.audit import Call, Value
from embridge.quantize.passes import fold_weights
from embridge.quantize.silence import quiet
from embridge.quantize.targets.pte import arena_bytes, program_calls

NO_VALUE = 2**32 - 1  # XNNPACK's id of an operand that is not there


def lower(graph: ExportedProgram) -> bytes:
    """ExecuTorch program for XNNPACK, (1, C, 1, T) float32 in and (1, D, 1, 1) float32 out.

    In a quantized graph XNNPACK quantizes the input and dequantizes the output itself; between
    them everything is int8.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(fold_weights(graph), partitioner=[XnnpackPartitioner()])
        return bytes(edge.to_executorch().buffer)


def calls(artefact: bytes) -> Iterator[Call]:
    """The operators of the program, those in XNNPACK's delegates included."""
    return program_calls(artefact, {"XnnpackBackend": _xnnpack_calls})


def facts(artefact: bytes) -> dict[str, Any]:
    """Memory planned for values outside the delegates; XNNPACK allocates its own at run time."""
    return {"arena_bytes": arena_bytes(artefact), "arena_excludes": "XNNPACK's own workspace"}


def _xnnpack_calls(payload: bytes) -> Iterator[Call]:
    graph = payload_graph(payload)
    values = {}
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"].get("tensor_value", value["xvalue_union"])
        dtype = tensor["datatype"].removeprefix("xnn_datatype_")
        values[tensor["id_out"]] = Value(dtype, tensor["external_id"] != NO_VALUE)
    for node in graph["xnodes"]:
        operands = {
            name: values[operand]
            for name, operand in node["xnode_union"].items()
            if name.endswith("_id") and operand != NO_VALUE
        }
        yield Call(
            node["xnode_union_type"].removeprefix("XNN"),
            [v for name, v in operands.items() if not name.startswith("output")],
            [v for name, v in operands.items() if name.startswith("output")],
        )


def payload_graph(payload: bytes) -> Any:
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
