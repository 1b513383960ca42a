"""The same encoder in every runtime that can run a package here, ready to be timed."""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from embridge.device.manifest import RUNTIME_STAGES, STAGE_FILES
from embridge.device.package import Package
from embridge.device.runtimes import INT8, EncoderRuntime
from embridge.quantize.base_quantizer import Quantized
from embridge.quantize.export import export_graph
from embridge.quantize.lower import export_float_graph, lower_stage
from embridge.quantize.onnx_encoder import OnnxEncoder
from embridge.quantize.quantizer import QuantizedEncoder
from embridge.quantize.silence import quiet
from embridge.quantize.stages import ONNX_STAGES, open_stage, quantized_encoder

OWN_INT8 = "onnxruntime-own-int8"  # ONNX Runtime's quantizer on the same float weights
Windows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One encoder in one runtime; both calls take the number of a window, of any size.

    network: the runtime alone, from a tensor of the type that it takes to the one that it gives
    embed: as a device calls it, (C, T) float32 in and (D,) float32 out
    """

    name: str
    bytes: int
    network: Callable[[int], NDArray[Any]]
    embed: Callable[[int], NDArray[np.float32]]


def contestants(package: Package) -> list[Contestant]:
    """Torch, every runtime stage of the package, and for `watch` ONNX Runtime where installed.

    They run the golden windows. ONNX models that the package lacks are made here.
    """
    windows: Windows = np.asarray(package.golden()["windows"], np.float32)
    quantized = quantized_encoder(package)
    stages = [stage for stage in package.manifest.stages if stage in RUNTIME_STAGES]
    entrants = [_torch(package, quantized, windows)]
    entrants += [_staged(package, stage, windows) for stage in stages]
    if isinstance(quantized, QuantizedEncoder) and not absent():
        models = _onnx_models(package, quantized, windows)
        entrants += [_onnx(name, model, windows) for name, model in models.items()]
    return entrants


def absent() -> dict[str, str]:
    """Contestants that cannot take part on this machine, and why."""
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        return {}
    reason = "onnx or onnxruntime is not installed; run `pip install 'embridge[onnx]'`"
    return dict.fromkeys((*ONNX_STAGES, OWN_INT8), reason)


def _torch(package: Package, quantized: Quantized, windows: Windows) -> Contestant:
    model = quantized.float_encoder
    tensors = [torch.from_numpy(window)[None, :, None] for window in windows]  # 1 C 1 T each

    def network(i: int) -> NDArray[np.float32]:
        with torch.inference_mode():
            output: NDArray[np.float32] = model(tensors[i % len(tensors)]).numpy()
        return output

    size = package.manifest.files[STAGE_FILES["float"]].bytes
    return Contestant("float", size, network, _embed(open_stage(package, "float"), windows))


def _staged(package: Package, stage: str, windows: Windows) -> Contestant:
    """An ExecuTorch program takes and gives float32, so that its two calls are the same."""
    artefact = package.artefact(stage)
    embed = _embed(open_stage(package, stage), windows)
    network = embed if stage.startswith("executorch-") else _litert_network(artefact, windows)
    return Contestant(stage, len(artefact), network, embed)


def _onnx(name: str, model: bytes, windows: Windows) -> Contestant:
    encoder = OnnxEncoder(model)
    inputs = np.ascontiguousarray(windows[:, None, :, None])  # N 1 C 1 T

    def network(i: int) -> NDArray[np.float32]:
        return encoder.run(inputs[i % len(inputs)])

    return Contestant(name, len(model), network, _embed(encoder, windows))


def _embed(encoder: EncoderRuntime, windows: Windows) -> Callable[[int], NDArray[np.float32]]:
    return lambda i: encoder.embed(windows[i % len(windows)])


def _litert_network(artefact: bytes, windows: Windows) -> Callable[[int], NDArray[Any]]:
    interpreter = Interpreter(model_content=artefact, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    values: NDArray[Any] = windows.transpose(0, 2, 1)[:, None, None]  # N 1 1 T C
    if source["dtype"] == np.int8:
        scale, zero_point = source["quantization"]
        values = np.clip(np.rint(values / np.float32(scale)) + zero_point, INT8.min, INT8.max)
    inputs = np.ascontiguousarray(values, source["dtype"])

    def network(i: int) -> NDArray[Any]:
        interpreter.set_tensor(source["index"], inputs[i % len(inputs)])
        interpreter.invoke()
        output: NDArray[Any] = interpreter.get_tensor(sink["index"])
        return output

    return network


def _onnx_models(
    package: Package, quantized: QuantizedEncoder, windows: Windows
) -> dict[str, bytes]:
    stages = package.manifest.stages
    models = {stage: package.artefact(stage) for stage in ONNX_STAGES if stage in stages}
    if "onnx-fp32" not in models:
        graph = export_float_graph(quantized.float_encoder)
        models["onnx-fp32"] = lower_stage("onnx-fp32", graph).data
    if "onnx-int8" not in models:
        models["onnx-int8"] = lower_stage("onnx-int8", export_graph(quantized.twin)).data
    models[OWN_INT8] = own_int8(models["onnx-fp32"], windows)
    return models


def own_int8(model: bytes, windows: Windows) -> bytes:
    """A float ONNX model, quantized by ONNX Runtime's own static quantizer.

    windows: (N, C, T), to calibrate on. As its documentation advises for x86: QDQ, weights int8
    per channel, activations uint8.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        import onnx
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self._inputs = iter(windows[:, None, :, None])  # N 1 C 1 T

            def get_next(self) -> dict[str, Windows] | None:
                window = next(self._inputs, None)
                return None if window is None else {"window": window}

        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(onnx.load_from_string(model), str(prepared))
        quantize_static(
            str(prepared),
            str(quantized),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantized.read_bytes()
