"""Running an encoder artefact on the device, without torch: .tflite by LiteRT, .pte by ExecuTorch.

Every runtime uses one thread, takes one window and gives the same numbers for the same window.
"""

import ctypes
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from embridge.device.errors import ConfigError, PackageError
from embridge.device.executorch_library import load_library

INT8 = np.iinfo(np.int8)


class EncoderRuntime(Protocol):
    """One encoder, loaded."""

    embedding_scale: float | None  # real = (code - zero point) * scale; None for a float encoder
    embedding_zero_point: int

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) float32, dequantized, not of unit length.

        (M, D) from an encoder with M > 1 queries. Raises ConfigError for a window of another shape.
        """

    def codes(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """window: (C, T) float32 -> (D,) or (M, D) int8; ConfigError for a float encoder."""

    def close(self) -> None:
        """Free the encoder; it cannot be used afterwards."""


class LiteRtEncoder:
    """A .tflite with an NHWC input (1, 1, T, C), int8 or float32 at each end.

    An int8 input asks for an int8 output; where only the output is int8, the network is mixed.
    queries: M, of D values each, that the output holds
    """

    def __init__(self, model: bytes | Path, *, queries: int = 1) -> None:
        content = model.read_bytes() if isinstance(model, Path) else model
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise PackageError(
                f"LiteRT cannot load the .tflite ({' '.join(str(error).split())}); lower it again"
            ) from error
        (source,) = self._interpreter.get_input_details()
        (sink,) = self._interpreter.get_output_details()
        ends = (source["dtype"], sink["dtype"])
        if ends not in ((np.int8, np.int8), (np.float32, np.int8), (np.float32, np.float32)):
            raise PackageError(
                f"the .tflite takes {ends[0].__name__} and gives {ends[1].__name__}, "
                "expected int8 or float32 at both ends, or float32 and int8; lower it again"
            )
        self._source, self._sink = source["index"], sink["index"]
        self._integer, integer_output = (dtype == np.int8 for dtype in ends)
        self._input_scale, self._input_zero_point = source["quantization"]
        scale, zero_point = sink["quantization"]
        self.embedding_scale = float(scale) if integer_output else None
        self.embedding_zero_point = int(zero_point)
        _, _, window, channels = (int(n) for n in source["shape"])
        self.input_shape = (channels, window)
        self.embedding_shape = _embedding_shape(int(np.prod(sink["shape"])), queries)

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) float32."""
        output = self._run(window)
        if self.embedding_scale is None:
            return output.astype(np.float32)
        centred = output.astype(np.float32) - np.float32(self.embedding_zero_point)
        return centred * np.float32(self.embedding_scale)

    def codes(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """window: (C, T) float32 -> (D,) int8."""
        if self.embedding_scale is None:
            raise _no_codes()
        return self._run(window).astype(np.int8)

    def close(self) -> None:
        """Free the interpreter."""
        del self._interpreter

    def _quantized(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """(C, T) -> (C, T) codes, to the bit as fake quantization and XNNPACK: half goes to even.

        In place: this is most of the time that a small network takes.
        """
        codes = window * (np.float32(1) / np.float32(self._input_scale))
        np.rint(codes, out=codes)
        codes += np.float32(self._input_zero_point)
        np.maximum(codes, INT8.min, out=codes)
        np.minimum(codes, INT8.max, out=codes)
        return codes.astype(np.int8)

    def _run(self, window: NDArray[np.float32]) -> NDArray[np.generic]:
        x: NDArray[Any] = _checked(window, self.input_shape)
        if self._integer:
            x = self._quantized(x)
        time_major = np.ascontiguousarray(x.T)[None, None]  # 1 1 T C
        self._interpreter.set_tensor(self._source, time_major)
        self._interpreter.invoke()
        output: NDArray[np.generic] = self._interpreter.get_tensor(self._sink)
        return output.reshape(self.embedding_shape)


class ExecutorchEncoder:
    """A .pte with an input (1, C, 1, T), float32 at both ends.

    scale, zero_point: those of the embedding where it is int8 inside, as the manifest gives them;
    the .pte then returns (code - zero point) * scale, from which `codes` takes the codes back.
    queries: M, of D values each, that the output holds
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        queries: int = 1,
        scale: float | None = None,
        zero_point: int = 0,
    ) -> None:
        content = model.read_bytes() if isinstance(model, Path) else model
        self._library = load_library()
        self._handle = ctypes.c_void_p()
        status = self._library.embridge_open(content, len(content), ctypes.byref(self._handle))
        if status:
            raise PackageError(f"ExecuTorch cannot load the .pte (error {-status}); lower it again")
        sizes = (ctypes.c_int32 * 4)()
        axes = self._library.embridge_input_shape(self._handle, sizes, len(sizes))
        if axes != 4:
            raise PackageError(f"the .pte has {axes} input axes, expected 4; lower it again")
        _, channels, _, window = sizes
        self.input_shape = (channels, window)
        values = self._library.embridge_output_values(self._handle)
        self.embedding_shape = _embedding_shape(values, queries)
        self.embedding_scale = scale
        self.embedding_zero_point = zero_point

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) float32."""
        if not self._handle:
            raise ConfigError("the encoder is closed; open it again")
        x = np.ascontiguousarray(_checked(window, self.input_shape))
        y = np.empty(self.embedding_shape, np.float32)
        status = self._library.embridge_run(
            self._handle, x.ctypes.data, x.size, y.ctypes.data, y.size
        )
        if status:
            raise PackageError(f"ExecuTorch cannot run the .pte (error {-status}); lower it again")
        return y

    def codes(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """window: (C, T) float32 -> (D,) int8."""
        if self.embedding_scale is None:
            raise _no_codes()
        values = self.embed(window) / np.float32(self.embedding_scale)
        codes: NDArray[np.int8] = (np.rint(values) + self.embedding_zero_point).astype(np.int8)
        return codes

    def close(self) -> None:
        """Free the program."""
        self._library.embridge_close(self._handle)
        self._handle = ctypes.c_void_p()


def open_runtime(
    stage: str,
    artefact: bytes,
    *,
    channels: int,
    window: int,
    embedding_dim: int,
    scale: float,
    zero_point: int,
    queries: int = 1,
) -> EncoderRuntime:
    """Load the artefact of a stage.

    scale, zero_point: of the int8 embedding; queries: vectors of `embedding_dim` values that a
    window gives. Raises PackageError when the artefact cannot be
    loaded, or is not what the arguments say, and ConfigError for an unknown stage.
    """
    runtime: LiteRtEncoder | ExecutorchEncoder
    if stage in ("tflite-fp32", "tflite-int8"):
        runtime = LiteRtEncoder(artefact, queries=queries)
    elif stage == "executorch-fp32":
        runtime = ExecutorchEncoder(artefact, queries=queries)
    elif stage == "executorch-int8":
        runtime = ExecutorchEncoder(artefact, queries=queries, scale=scale, zero_point=zero_point)
    else:
        raise ConfigError(
            f"stage {stage!r} does not run here; choose executorch-fp32, executorch-int8, "
            "tflite-fp32 or tflite-int8"
        )
    got = (runtime.input_shape, runtime.embedding_shape)
    expected = ((channels, window), (queries, embedding_dim) if queries > 1 else (embedding_dim,))
    if got != expected:
        raise PackageError(
            f"{stage}: the artefact takes (C, T) = {got[0]} and gives {got[1]}, the manifest says "
            f"{expected[0]} and {expected[1]}; build the package again"
        )
    _require_grid(stage, runtime, scale, zero_point)
    return runtime


def _require_grid(
    stage: str, runtime: LiteRtEncoder | ExecutorchEncoder, scale: float, zero_point: int
) -> None:
    """A gallery of codes is only comparable with an encoder of the same grid."""
    got = runtime.embedding_scale
    if stage.endswith("-fp32") and got is None:
        return
    same = got is not None and np.float32(got) == np.float32(scale)
    if not same or runtime.embedding_zero_point != zero_point:
        raise PackageError(
            f"{stage}: the artefact's embedding has scale {got} and zero point "
            f"{runtime.embedding_zero_point}, the manifest says {scale} and {zero_point}; "
            "build the package again"
        )


def _checked(window: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if window.shape != shape:
        raise ConfigError(
            f"window has shape {window.shape}, the encoder takes (C, T) = {shape}; "
            "cut windows with the package's own configuration"
        )
    return window.astype(np.float32, copy=False)


def _embedding_shape(values: int, queries: int) -> tuple[int, ...]:
    """(D,), or (M, D) for M > 1 queries; PackageError when `values` are no M vectors."""
    if values % queries:
        raise PackageError(
            f"the artefact gives {values} values, expected {queries} query vectors of equal "
            "length as the manifest says; build the package again"
        )
    return (queries, values // queries) if queries > 1 else (values,)


def _no_codes() -> ConfigError:
    return ConfigError("this encoder gives float embeddings, not codes; choose an int8 stage")
