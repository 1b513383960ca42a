"""The `watch` encoder sample by sample: the embedding of every window without recomputing it.

A frame is one time step of what the encoder pools. Frames depend only on the samples before them,
so each is computed once, from the last few inputs of every layer; a window's embedding is the head
applied to the mean of the frames that lie in it, kept as a running sum. Nothing in the path holds a
whole window of samples.

Alignment: frames are `shape.stride` samples apart, so windows can share them only where windows
begin on that grid. `hop` must be a multiple of the stride, and the stream begins at a window.
"""

from collections import deque

import torch
from torch import Tensor, nn

from embridge.device.errors import ConfigError
from embridge.training.watch import WatchEncoder, WatchShape


def stream_hop(shape: WatchShape, hop: int) -> int:
    """The hop nearest to `hop` at which windows share frames, in samples, at least one stride."""
    return max(1, round(hop / shape.stride)) * shape.stride


def require_hop(shape: WatchShape, hop: int) -> int:
    """Return `hop`, or raise ConfigError when windows at that hop do not share frames."""
    if hop < 1 or hop % shape.stride:
        raise ConfigError(
            f"hop of {hop} samples: expected a multiple of the watch encoder's total stride "
            f"{shape.stride}, or frames cannot be shared between windows; the nearest is "
            f"{stream_hop(shape, hop)}, set data.hop_ms to it"
        )
    return hop


class WatchStream:
    """One stream through an encoder in eval mode, float or fake-quantized.

    Embeddings equal those of whole windows: to the rounding of float sums, since the mean is of a
    running sum in float64, and convolutions of another length may add up in another order.
    """

    def __init__(self, encoder: WatchEncoder, hop: int) -> None:
        shape = encoder.shape
        self.hop = require_hop(shape, hop)
        self._encoder = encoder
        self._layers = [
            _Layer(module, stage.kernel, stage.stride)
            for module, stage in zip((encoder.stem, *encoder.blocks), shape.stages, strict=True)
        ]
        self._stride, self._frames = shape.stride, shape.frames()
        self._held: deque[Tensor] = deque(maxlen=self._frames)  # of (D,) float64
        self._sum = torch.zeros(shape.stages[-1].width, dtype=torch.float64)
        self._count = 0  # of frames so far

    @torch.no_grad()
    def push(self, samples: Tensor) -> list[tuple[int, Tensor]]:
        """Take the next (C, n) normalised samples -> (start, embedding (D,)) of windows now known.

        A window is known with its last frame, up to a stride before its last sample.
        """
        found: list[tuple[int, Tensor]] = []
        x: Tensor = self._encoder.input(samples[None, :, None])  # 1 C 1 n
        for layer in self._layers:
            made = layer.push(x)
            if made is None:
                return found
            x = made
        for frame in x[0, :, 0].T.double():  # D
            self._add(frame)
            start = (self._count - self._frames) * self._stride
            if start >= 0 and start % self.hop == 0:
                found.append((start, self._embedding(samples.dtype)))
        return found

    def held_values(self) -> int:
        """How many inputs of layers and values of frames are kept between two pushes."""
        return sum(layer.held_values() for layer in self._layers) + sum(
            frame.numel() for frame in self._held
        )

    def _add(self, frame: Tensor) -> None:
        if len(self._held) == self._frames:
            self._sum -= self._held[0]  # the append below drops it
        self._held.append(frame)
        self._sum += frame
        self._count += 1

    def _embedding(self, dtype: torch.dtype) -> Tensor:
        encoder = self._encoder
        mean = (self._sum / self._frames).to(dtype)[None, :, None, None]  # 1 D 1 1
        return encoder.output(encoder.head(encoder.pooled(mean))).flatten()  # type: ignore[no-any-return]


class _Layer:
    """A module of one convolution over time without padding, and the inputs it still needs."""

    def __init__(self, module: nn.Module, kernel: int, stride: int) -> None:
        self._module, self._kernel, self._stride = module, kernel, stride
        self._inputs: Tensor | None = None
        self._skip = 0  # of the next inputs, where the stride is longer than the kernel

    def push(self, x: Tensor) -> Tensor | None:
        """x: (1, D, 1, n) -> (1, D', 1, n') or None where no output is complete yet."""
        joined = x if self._inputs is None else torch.cat([self._inputs, x], dim=3)
        skipped = min(self._skip, joined.shape[3])
        joined, self._skip = joined[..., skipped:], self._skip - skipped
        steps = (joined.shape[3] - self._kernel) // self._stride + 1
        used = max(steps, 0) * self._stride
        self._skip += max(used - joined.shape[3], 0)
        self._inputs = joined[..., used:].clone()
        return self._module(joined) if steps > 0 else None

    def held_values(self) -> int:
        """Number of inputs kept."""
        return 0 if self._inputs is None else self._inputs.numel()
