"""Opening any stage of a package as one kind of encoder, the torch stages included."""

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from embridge.device.errors import ConfigError, PackageError
from embridge.device.manifest import INT8_STAGES, RUNTIME_STAGES, STAGE_FILES
from embridge.device.package import Package
from embridge.device.pipeline import open_encoder
from embridge.device.runtimes import EncoderRuntime
from embridge.quantize.base_layers import BaseShape, WindowEncoder
from embridge.quantize.base_quantizer import Quantized, base_from_state
from embridge.quantize.export import plain_copy
from embridge.quantize.onnx_encoder import OnnxEncoder
from embridge.quantize.quantizer import from_state
from embridge.training.config import BaseConfig, WatchConfig
from embridge.training.watch import WatchEncoder

ONNX_STAGES = ("onnx-fp32", "onnx-int8")
HOST_STAGES = ("float", "fakequant", *RUNTIME_STAGES, *ONNX_STAGES)  # run anywhere


class TorchEncoder:
    """The float or the fake-quantized network, with the interface of a device runtime.

    scale: of the embedding where it is fake-quantized, None in float
    """

    def __init__(
        self, encoder: WatchEncoder | WindowEncoder, scale: float | None, zero_point: int
    ) -> None:
        self._encoder = encoder
        self.embedding_scale, self.embedding_zero_point = scale, zero_point

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) or (M, D) float32, dequantized, not of unit length."""
        shape = self._encoder.shape
        if window.shape != (shape.channels, shape.window):
            raise ConfigError(
                f"window has shape {window.shape}, the encoder takes (C, T) = "
                f"{(shape.channels, shape.window)}; cut windows with the package's configuration"
            )
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(window, np.float32))[None]
            return self._encoder.embed(batch)[0].numpy()

    def codes(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """window: (C, T) float32 -> (D,) or (M, D) int8; ConfigError in float."""
        if self.embedding_scale is None:
            raise ConfigError("this encoder gives float embeddings, not codes")
        codes = np.rint(self.embed(window) / np.float32(self.embedding_scale))
        return np.asarray(codes + self.embedding_zero_point, np.int8)

    def close(self) -> None:
        """Nothing to free."""


def open_stage(package: Package, stage: str) -> EncoderRuntime:
    """The encoder of any stage the package carries; ConfigError for an unknown stage."""
    if stage not in STAGE_FILES:
        raise ConfigError(f"stage {stage!r}: expected one of {', '.join(STAGE_FILES)}")
    if stage in ("float", "fakequant"):
        quantized = quantized_encoder(package)
        if stage == "float":
            return TorchEncoder(quantized.float_encoder, None, 0)
        twin = quantized.twin
        fast = plain_copy(twin) if isinstance(twin, WindowEncoder) else twin
        return TorchEncoder(fast, quantized.scale, quantized.zero_point)
    if stage in ONNX_STAGES:
        return _open_onnx(package, stage)
    return open_encoder(package, stage)


def _open_onnx(package: Package, stage: str) -> OnnxEncoder:
    manifest = package.manifest
    scale = manifest.embedding.scale if stage in INT8_STAGES else None
    encoder = OnnxEncoder(
        package.artefact(stage), scale=scale, zero_point=manifest.embedding.zero_point
    )
    got = (*encoder.input_shape, encoder.embedding_dim)
    expected = (manifest.input.channels, manifest.input.window, manifest.embedding.dim)
    if got != expected:
        raise PackageError(
            f"{stage}: the artefact has (C, T, D) = {got}, the manifest says {expected}; "
            "build the package again"
        )
    return encoder


def quantized_encoder(package: Package) -> Quantized:
    """The package's reference networks."""
    manifest, spec = package.manifest, package.manifest.input
    state = load(package.artefact("float")) | load(package.artefact("fakequant"))
    recipe = manifest.config["recipe"]
    if manifest.encoder == "base":
        base = BaseConfig.model_validate(manifest.config["base"])
        shape = BaseShape(base, spec.channels, spec.window, spec.rate_hz, manifest.embedding.dim)
        return base_from_state(shape, recipe, state)
    watch = WatchConfig.model_validate(manifest.config["watch"])
    return from_state(
        watch.shape(spec.channels, spec.window, manifest.embedding.dim), recipe, state
    )


def queries(
    stage: str, runtime: EncoderRuntime, windows: NDArray[np.float32]
) -> NDArray[np.generic]:
    """windows: (N, C, T) -> what is searched with: int8 codes or float, (N, D) or (N, M, D)."""
    one = runtime.codes if stage in INT8_STAGES else runtime.embed
    return np.stack([one(window) for window in windows])
