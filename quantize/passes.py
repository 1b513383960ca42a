"""Clean-ups of an exported quantized graph; none changes a value."""

import copy

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers quantized_decomposed
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from embridge.quantize.silence import quiet

qd = torch.ops.quantized_decomposed
QUANTIZE = qd.quantize_per_tensor.default
DEQUANTIZE = qd.dequantize_per_tensor.default
QUANTIZE_WEIGHT = qd.quantize_per_channel.default
DEQUANTIZE_WEIGHT = qd.dequantize_per_channel.default


def clean(program: ExportedProgram) -> None:
    """Bring the graph, in place, into the form that the partitioners of all backends recognise."""
    graph = program.graph_module.graph
    drop_redundant_relu(graph)
    duplicate_dequantize(graph)
    graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.recompile()


def drop_redundant_relu(graph: Graph) -> None:
    """Remove each ReLU whose every reader quantizes with zero at the lowest code: it clamps too."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default):
        readers = list(node.users)
        if all(r.target is QUANTIZE and r.args[2] == r.args[3] for r in readers):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def duplicate_dequantize(graph: Graph) -> None:
    """Give every reader its own dequantize node.

    With a shared one the XNNPACK partitioner splits the graph, or stops at a dependency cycle.
    """
    for node in graph.find_nodes(op="call_function", target=DEQUANTIZE):
        for reader in list(node.users)[1:]:
            with graph.inserting_before(reader):
                reader.replace_input_with(node, graph.node_copy(node))


def fold_weights(program: ExportedProgram) -> ExportedProgram:
    """A copy of the program that holds int8 weights where it held float ones and a quantize."""
    with quiet():  # torch warns about its own copying
        folded = copy.deepcopy(program)
    graph = folded.graph_module.graph
    buffers = folded.graph_signature.inputs_to_buffers
    for node in graph.find_nodes(op="call_function", target=QUANTIZE_WEIGHT):
        grid, scale, zero = (folded.state_dict[buffers[arg.name]] for arg in node.args[:3])
        weight: Node = node.args[0]
        folded.state_dict[buffers[weight.name]] = QUANTIZE_WEIGHT(grid, scale, zero, *node.args[3:])
        weight.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(weight)
        graph.erase_node(node)
    graph.lint()
    folded.graph_module.recompile()
    return folded
