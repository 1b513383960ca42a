"""`embridge bench sizes`: what the sizes of the `watch` encoder cost, before anything is trained.

Counted from the shape, except for the file: a network of random weights is quantized and lowered
like a trained one, and its .tflite is weighed. Weights do not change any figure here.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from embridge.device.errors import ConfigError
from embridge.quantize.lower import lower_all
from embridge.quantize.quantizer import quantize_encoder
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.plan import samples
from embridge.training.study import Progress
from embridge.training.watch import WatchEncoder, WatchShape, WatchSize
from embridge.training.watch_cost import (
    macs_per_hop,
    parameters,
    stream_peak_bytes,
    stream_state_bytes,
    weight_bytes,
)
from embridge.training.watch_stream import stream_hop

STREAMS = {  # channels, Hz: what each preset is meant for
    "raw": (16, 2000.0),
    "raw_slow": (8, 200.0),
    "envelope": (10, 100.0),
    "paper": (16, 2000.0),
}
SIZES: tuple[WatchSize, ...] = get_args(WatchSize)
STAGE = "tflite-int8"
COLUMNS = {
    "config": "config",
    "size": "size",
    "parameters": "parameters",
    "MACs/window": "macs_per_window",
    "MACs/hop": "macs_per_hop",
    "hop ms": "stream_hop_ms",
    "weights B": "weight_bytes",
    ".tflite B": "tflite_bytes",
    "state B": "stream_state_bytes",
    "peak B": "stream_peak_bytes",
}


@dataclass(frozen=True, slots=True)
class SizeRow:
    """One encoder. Bytes are of int8.

    macs_per_window: of recomputing a window; macs_per_hop: of one more window when streamed at
    stream_hop_ms, the configuration's hop on the grid of frames; stream_state_bytes: kept between
    two frames; stream_peak_bytes: of activations, the state included
    """

    config: str
    size: WatchSize
    channels: int
    rate_hz: float
    widths: tuple[int, ...]
    parameters: int
    macs_per_window: int
    macs_per_hop: int
    stream_hop_ms: float
    weight_bytes: int
    tflite_bytes: int
    stream_state_bytes: int
    stream_peak_bytes: int


def bench_sizes(
    config: str | None = None,
    channels: int | None = None,
    rate_hz: float | None = None,
    progress: Progress | None = None,
) -> list[SizeRow]:
    """Rows of every size, of one configuration or of all presets.

    config: a preset's name or a TOML file; None for all presets
    channels, rate_hz: of the stream; those of the preset's kind when left out
    Raises ConfigError when the network does not fit a window at that rate, and for fewer than one
    channel or a rate that is not above 0.
    """
    if any(given is not None and not given > 0 for given in (channels, rate_hz)):
        raise ConfigError(f"expected channels and rate above 0, got {channels} and {rate_hz} Hz")
    paths = [_path(config)] if config else [PRESETS / f"{name}.toml" for name in STREAMS]
    jobs = [(load_config(path), size) for path in paths for size in SIZES]
    rows = []
    for done, (settings, size) in enumerate(jobs):
        if progress:
            progress(done, len(jobs), f"lower {settings.name} {size}")
        usual = STREAMS.get(settings.name, STREAMS["raw"])
        rows.append(_row(settings, size, channels or usual[0], rate_hz or usual[1]))
    if progress:
        progress(len(jobs), len(jobs), "lowered")
    return rows


def text(rows: list[SizeRow]) -> str:
    """The table for people."""
    cells = [list(COLUMNS), *([_cell(asdict(row)[n]) for n in COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    streams = dict.fromkeys(f"{r.config}: {r.channels} channels at {r.rate_hz:g} Hz" for r in rows)
    return "\n".join([*lines, "", "; ".join(streams)])


def _row(config: Config, size: WatchSize, channels: int, rate_hz: float) -> SizeRow:
    watch = config.watch.model_copy(update={"size": size})
    window = samples(config.data.window_ms, rate_hz)
    shape = watch.shape(channels, window, config.embedding(channels))
    try:
        shape.frames()
    except ValueError as error:
        raise ConfigError(f"{config.name} at {rate_hz:g} Hz: {error}") from error
    hop = stream_hop(shape, samples(config.data.hop_ms, rate_hz))
    return SizeRow(
        config=config.name,
        size=size,
        channels=channels,
        rate_hz=rate_hz,
        widths=tuple(stage.width for stage in shape.stages),
        parameters=parameters(shape),
        macs_per_window=shape.macs(),
        macs_per_hop=macs_per_hop(shape, hop),
        stream_hop_ms=1000 * hop / rate_hz,
        weight_bytes=weight_bytes(shape),
        tflite_bytes=len(_lowered(shape)),
        stream_state_bytes=stream_state_bytes(shape),
        stream_peak_bytes=stream_peak_bytes(shape),
    )


def _lowered(shape: WatchShape) -> bytes:
    """The int8 .tflite of a network of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = WatchEncoder(shape).eval()
    noise = np.random.default_rng(0).standard_normal((4, shape.channels, shape.window))
    quantized = quantize_encoder(encoder, noise.astype(np.float32), "w8a8", seed=0)
    return lower_all(quantized, [STAGE])[STAGE].data


def _path(config: str) -> Path:
    preset = PRESETS / f"{config}.toml"
    return preset if preset.is_file() else Path(config)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
