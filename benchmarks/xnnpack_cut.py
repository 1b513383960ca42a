"""XNNPACK's graph, ended after one of its nodes by writing a few numbers into its own bytes.

A round trip through flatc's JSON would round every scale to six decimals, so it only serves to read
names and ids; what is changed is changed in place. Slots are those of executorch's schema.fbs.
"""

import struct
from dataclasses import dataclass
from typing import Any

from flatbuffers.number_types import Float32Flags
from flatbuffers.table import Table

from embridge.quantize.silence import quiet
from embridge.quantize.targets.xnnpack import payload_graph

# Slot of field n is 4 + 2 n; a union takes two, its kind and its value.
GRAPH_NODES, GRAPH_VALUES, GRAPH_OUTPUT_IDS = 6, 8, 14
NODE_UNION, VALUE_UNION = 6, 6
CONVERT_INPUT_ID = 4
QUANTIZED_PARAMETERS, PARAMETERS_SCALE = 8, 4
TENSOR_DIMS, TENSOR_ID = 8, 16


@dataclass(frozen=True, slots=True)
class CutGraph:
    """A delegate's bytes, ended early; dims of its output, and the grid of its codes if int8."""

    payload: bytes
    dims: tuple[int, ...]
    scale: float | None
    zero_point: int


class XnnpackGraph:
    """The graph in a delegate's bytes, to be cut any number of times."""

    def __init__(self, payload: bytes) -> None:
        from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

        with quiet():
            graph = payload_graph(payload)
        self._payload = payload
        self._root = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH]).flatbuffer_offset
        self._nodes: list[dict[str, Any]] = [node["xnode_union"] for node in graph["xnodes"]]
        self.names = [node["xnode_union_type"].removeprefix("XNN") for node in graph["xnodes"]]
        unions = [value["xvalue_union"] for value in graph["xvalues"]]
        self._tensors: list[dict[str, Any]] = [v.get("tensor_value", v) for v in unions]
        self._parameters = [v.get("quant_params", {}) for v in unions]
        self._place = {tensor["id_out"]: n for n, tensor in enumerate(self._tensors)}
        self._integer = self.names[-1] == "Convert"

    def cut(self, end: int) -> CutGraph:
        """Keep the first `end` nodes; in int8 also the conversion to float that ends the graph."""
        edit = _Edit(self._payload, self._root)
        whole = end == len(self._nodes)
        final = self._nodes[-1]
        value = final["input_id"] if whole and self._integer else self._nodes[end - 1]["output_id"]
        dims = tuple(int(n) for n in self._tensors[self._place[value]]["dims"])
        sink = self._place[final["output_id"]]
        if not whole:
            edit.set_dims(sink, dims)
            if self._integer:
                edit.end_with_conversion(end, len(self._nodes) - 1, value)
            else:
                edit.end_with_value(end, value, self._place[value], sink)
        if not self._integer:
            return CutGraph(bytes(edit.buffer), dims, None, 0)
        place = self._place[value]
        zero_point = int(self._parameters[place]["zero_point"])
        return CutGraph(bytes(edit.buffer), dims, edit.scale(place), zero_point)


class _Edit:
    """Numbers written into a copy of a delegate's bytes."""

    def __init__(self, payload: bytes, root: int) -> None:
        self.buffer = bytearray(payload)
        self._graph = Table(self.buffer, root + struct.unpack_from("<I", payload, root)[0])

    def scale(self, place: int) -> float:
        """Scale of a per-tensor quantized value, exactly."""
        value = _child(self._entry(GRAPH_VALUES, place), VALUE_UNION)
        parameters = _child(value, QUANTIZED_PARAMETERS)
        offset = parameters.Pos + parameters.Offset(PARAMETERS_SCALE)
        return float(parameters.Get(Float32Flags, offset))

    def set_dims(self, place: int, dims: tuple[int, ...]) -> None:
        """Dims of a float value."""
        tensor = _child(self._entry(GRAPH_VALUES, place), VALUE_UNION)
        struct.pack_into(f"<{len(dims)}I", self.buffer, _vector(tensor, TENSOR_DIMS), *dims)

    def end_with_conversion(self, end: int, conversion: int, value: int) -> None:
        """Let the node `conversion` follow the first `end` nodes, and read `value`."""
        self._move(GRAPH_NODES, conversion, end)
        self._shorten(GRAPH_NODES, end + 1)
        node = _child(self._entry(GRAPH_NODES, end), NODE_UNION)
        self._write(node.Pos + node.Offset(CONVERT_INPUT_ID), value)

    def end_with_value(self, end: int, value: int, place: int, sink: int) -> None:
        """Keep the first `end` nodes; the graph's output takes the place and id of `value`."""
        tensor = _child(self._entry(GRAPH_VALUES, sink), VALUE_UNION)
        self._write(tensor.Pos + tensor.Offset(TENSOR_ID), value)
        self._write(_vector(self._graph, GRAPH_OUTPUT_IDS), value)
        last = self._length(GRAPH_VALUES) - 1
        self._move(GRAPH_VALUES, sink, place)
        self._move(GRAPH_VALUES, last, sink)
        self._shorten(GRAPH_VALUES, last)
        self._shorten(GRAPH_NODES, end)

    def _entry(self, slot: int, number: int) -> Table:
        position = _vector(self._graph, slot) + 4 * number
        return Table(self.buffer, self._graph.Indirect(position))

    def _move(self, slot: int, source: int, target: int) -> None:
        """Let the entry `target` of a vector be the one at `source`; offsets are relative."""
        position = _vector(self._graph, slot) + 4 * target
        self._write(position, self._entry(slot, source).Pos - position)

    def _length(self, slot: int) -> int:
        return int(self._graph.VectorLen(self._graph.Offset(slot)))

    def _shorten(self, slot: int, length: int) -> None:
        self._write(_vector(self._graph, slot) - 4, length)

    def _write(self, position: int, number: int) -> None:
        struct.pack_into("<I", self.buffer, position, number)


def _vector(table: Table, slot: int) -> int:
    """Position of the first element of a vector."""
    return int(table.Vector(table.Offset(slot)))


def _child(table: Table, slot: int) -> Table:
    """The table that a field points to."""
    return Table(table.Bytes, table.Indirect(table.Pos + table.Offset(slot)))
