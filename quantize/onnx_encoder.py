"""Running an ONNX artefact with ONNX Runtime; on the host only, devices use `device.runtimes`."""

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError, PackageError
from embridge.quantize.targets.extras import need


class OnnxEncoder:
    """An ONNX model (1, C, 1, T) -> (1, D, 1, 1), float32 at both ends, on one thread.

    scale, zero_point: those of the embedding where it is int8 inside, as the manifest gives them;
    the model then returns (code - zero point) * scale, from which `codes` takes the codes back.
    Raises ConfigError without onnxruntime, PackageError for a model that it cannot load.
    """

    def __init__(self, model: bytes, *, scale: float | None = None, zero_point: int = 0) -> None:
        need("onnx", "onnx", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class of errors for each of its codes
            raise PackageError(
                f"ONNX Runtime cannot load the .onnx ({' '.join(str(error).split())}); "
                "lower it again"
            ) from error
        (source,), (sink,) = self._session.get_inputs(), self._session.get_outputs()
        self._source = source.name
        _, channels, _, window = source.shape
        self.input_shape = (channels, window)
        self.embedding_dim = int(np.prod(sink.shape))
        self.embedding_scale = scale
        self.embedding_zero_point = zero_point

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) float32."""
        if window.shape != self.input_shape:
            raise ConfigError(
                f"window has shape {window.shape}, the encoder takes (C, T) = {self.input_shape}; "
                "cut windows with the package's own configuration"
            )
        x = np.ascontiguousarray(window, np.float32)[None, :, None]  # 1 C 1 T
        return self.run(x).ravel()

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model alone; x: (1, C, 1, T) float32 -> (1, D, 1, 1) float32."""
        output: NDArray[np.float32] = self._session.run(None, {self._source: x})[0]
        return output

    def codes(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """window: (C, T) float32 -> (D,) int8; ConfigError for a float encoder."""
        if self.embedding_scale is None:
            raise ConfigError("this encoder gives float embeddings, not codes; choose onnx-int8")
        values = self.embed(window) / np.float32(self.embedding_scale)
        return np.asarray(np.rint(values) + self.embedding_zero_point, np.int8)

    def close(self) -> None:
        """Free the session; the encoder cannot be used afterwards."""
        del self._session
