"""What a `watch` encoder costs in int8, counted from its shape alone.

Batch norm is folded into the convolutions. Streaming is that of `watch_stream`: every layer
computes only its new outputs, and the sums over frames replace the mean over a window.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from embridge.training.watch import WatchShape
from embridge.training.watch_stream import require_hop

_BIAS_BYTES = _SUM_BYTES = 4  # int32


@dataclass(frozen=True, slots=True)
class _Conv:
    """One convolution. stride: samples between two of its outputs; None: one in a window."""

    weights: int
    biases: int
    stride: int | None


def parameters(shape: WatchShape) -> int:
    """Weights and biases of the folded encoder."""
    return sum(conv.weights + conv.biases for conv in _convolutions(shape))


def weight_bytes(shape: WatchShape) -> int:
    """Bytes of int8 weights and int32 biases."""
    return sum(conv.weights + _BIAS_BYTES * conv.biases for conv in _convolutions(shape))


def macs_per_hop(shape: WatchShape, hop: int) -> int:
    """Multiply-accumulates of one more window when streamed.

    hop: samples, a multiple of the stride; raises ConfigError otherwise
    """
    require_hop(shape, hop)
    return sum(
        conv.weights * (1 if conv.stride is None else hop // conv.stride)
        for conv in _convolutions(shape)
    )


def stream_state_bytes(shape: WatchShape) -> int:
    """Most bytes kept between two frames: int8 inputs of layers, int8 frames, int32 sums."""
    widths = [shape.channels, *(stage.width for stage in shape.stages)]
    inputs = sum(
        width * (stage.kernel - 1) for width, stage in zip(widths, shape.stages, strict=False)
    )
    return inputs + widths[-1] * (shape.frames() + _SUM_BYTES)


def stream_peak_bytes(shape: WatchShape) -> int:
    """Most bytes of activations at any time of a stream fed one frame at a time.

    The state, and beside it the widest step: a layer's new inputs and outputs, or the pooled mean
    and the embedding.
    """
    width, steps = shape.channels, shape.stride
    widest = shape.stages[-1].width + shape.embedding
    for number, stage in enumerate(shape.stages):
        made = steps // stage.stride
        middle = 0 if number == 0 else made * width  # of a block, between its two convolutions
        out = made * stage.width
        widest = max(widest, steps * width + (middle or out), middle + out)
        width, steps = stage.width, made
    return stream_state_bytes(shape) + widest


def _convolutions(shape: WatchShape) -> Iterator[_Conv]:
    """Stem, depthwise and pointwise of each block, head."""
    strides = accumulate((stage.stride for stage in shape.stages), mul)
    width = shape.channels
    for number, (stage, stride) in enumerate(zip(shape.stages, strides, strict=True)):
        if number == 0:
            yield _Conv(width * stage.kernel * stage.width, stage.width, stride)
        else:
            yield _Conv(width * stage.kernel, width, stride)
            yield _Conv(width * stage.width, stage.width, stride)
        width = stage.width
    yield _Conv(width * shape.embedding, shape.embedding, None)
