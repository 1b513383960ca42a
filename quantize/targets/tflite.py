"""LiteRT: .tflite by litert-torch, for ai-edge-litert, tflite-runtime and TFLite Micro."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from embridge.quantize.audit import Call, Value
from embridge.quantize.silence import quiet


def lower(graph: ExportedProgram) -> bytes:
    """Full-integer .tflite, (1, 1, T, C) int8 in and (1, D, 1, 1) int8 out."""
    with quiet():
        from litert_torch.quantize import pt2e_quantizer, quant_config

        # The graph is quantized already. The converter looks only at the kind of configuration:
        # without one it turns quantize and dequantize into float operators, and says nothing.
        static = pt2e_quantizer.get_symmetric_quantization_config(
            is_per_channel=True, is_dynamic=False
        )
        quantizer = pt2e_quantizer.PT2EQuantizer().set_global(static)
        return _litert(graph, quant_config=quant_config.QuantConfig(pt2e_quantizer=quantizer))


def lower_float(graph: ExportedProgram) -> bytes:
    """Float .tflite, (1, 1, T, C) float32 in and (1, D, 1, 1) float32 out."""
    with quiet():
        return _litert(graph)


def _litert(graph: ExportedProgram, **options: object) -> bytes:
    import litert_torch

    (window,) = graph.example_inputs[0]
    module = litert_torch.to_channel_last_io(graph.module(), args=[0])
    sample = (torch.zeros_like(window).permute(0, 2, 3, 1).contiguous(),)  # 1 C 1 T -> 1 1 T C
    return bytes(litert_torch.convert(module, sample, **options).model_content())


def calls(artefact: bytes) -> Iterator[Call]:
    """The operators of a .tflite with the types of its tensors; a custom one by its own name."""
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

        def values(ids: Any, graph: Any = graph, ends: set[int] = ends) -> list[Value]:
            return [Value(dtypes[graph.tensors[i].type], i in ends) for i in ids if i >= 0]

        for call in graph.operators:
            code = model.operatorCodes[call.opcodeIndex]
            name = ops[max(code.builtinCode, code.deprecatedBuiltinCode)]
            op = code.customCode.decode() if code.customCode else name
            yield Call(op, values(call.inputs), values(call.outputs))


def facts(artefact: bytes) -> dict[str, Any]:
    """Nothing beyond the operators yet."""
    return {}
