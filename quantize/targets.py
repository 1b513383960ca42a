"""The backends: each turns an exported graph into the bytes of one artefact.

Every graph is (1, C, 1, T) float32 -> (1, D, 1, 1) float32. A new backend is one function and one
row of `TARGETS`; its file is named in `device.manifest.STAGE_FILES`. The tool chains are imported
where they are used: together they take seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from embridge.quantize.passes import fold_weights
from embridge.quantize.silence import quiet


@dataclass(frozen=True, slots=True)
class Target:
    """How to make the artefact of one stage.

    family: name that selects all its stages, `embridge lower --to FAMILY`
    integer: made from the quantized graph, and must not compute in float
    """

    family: str
    integer: bool
    lower: Callable[[ExportedProgram], bytes]


def lower_executorch(graph: ExportedProgram) -> bytes:
    """ExecuTorch program for XNNPACK, (1, C, 1, T) float32 in and (1, D, 1, 1) float32 out.

    In a quantized graph XNNPACK quantizes the input and dequantizes the output itself; between
    them everything is int8.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(fold_weights(graph), partitioner=[XnnpackPartitioner()])
        return bytes(edge.to_executorch().buffer)


def lower_tflite(graph: ExportedProgram) -> bytes:
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


def lower_float_tflite(graph: ExportedProgram) -> bytes:
    """Float .tflite, (1, 1, T, C) float32 in and (1, D, 1, 1) float32 out."""
    with quiet():
        return _litert(graph)


def _litert(graph: ExportedProgram, **options: object) -> bytes:
    import litert_torch

    (window,) = graph.example_inputs[0]
    module = litert_torch.to_channel_last_io(graph.module(), args=[0])
    sample = (torch.zeros_like(window).permute(0, 2, 3, 1).contiguous(),)  # 1 C 1 T -> 1 1 T C
    return bytes(litert_torch.convert(module, sample, **options).model_content())


TARGETS = {
    "executorch-fp32": Target("executorch", False, lower_executorch),
    "executorch-int8": Target("executorch", True, lower_executorch),
    "tflite-fp32": Target("tflite", False, lower_float_tflite),
    "tflite-int8": Target("tflite", True, lower_tflite),
}
