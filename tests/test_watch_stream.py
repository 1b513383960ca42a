"""Streaming the watch encoder gives the embeddings of whole windows, at the cost that is stated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from embridge.device.errors import ConfigError
from embridge.device.frontend import FilterDesign, FrontEnd, UserProfile, design_sos
from embridge.quantize.quantizer import quantize_encoder
from embridge.training.watch import Stage, WatchEncoder, WatchShape
from embridge.training.watch_cost import (
    macs_per_hop,
    parameters,
    stream_peak_bytes,
    stream_state_bytes,
    weight_bytes,
)
from embridge.training.watch_stream import WatchStream, require_hop, stream_hop

stages = st.builds(
    Stage, width=st.integers(1, 6), kernel=st.integers(1, 7), stride=st.integers(1, 3)
)


@st.composite
def shapes(draw):
    """Shapes whose window has room for 1 to 6 frames and some samples left over."""
    stem, *blocks = draw(st.lists(stages, min_size=2, max_size=4))
    channels, embedding = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    steps = draw(st.integers(1, 6))
    for stage in reversed([stem, *blocks]):
        steps = (steps - 1) * stage.stride + stage.kernel
    spare = draw(st.integers(0, 5))
    return WatchShape(channels, steps + spare, embedding, stem, tuple(blocks))


def encoder_of(shape: WatchShape, seed: int = 0) -> WatchEncoder:
    """In eval mode, in float64, with batch norm statistics that matter."""
    torch.manual_seed(seed)
    encoder = WatchEncoder(shape)
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.2, 3)
    return encoder.eval().double()


@torch.no_grad()
def windowed(encoder: WatchEncoder, samples: Tensor, hop: int) -> dict[int, Tensor]:
    """Embeddings of whole windows by their start; samples: (C, T)."""
    window = encoder.shape.window
    starts = range(0, samples.shape[1] - window + 1, hop)
    return {start: encoder.embed(samples[None, :, start : start + window])[0] for start in starts}


@settings(max_examples=60, deadline=None)
@given(shape=shapes(), hops=st.integers(1, 4), chunks=st.lists(st.integers(0, 40), min_size=1))
def test_streamed_embeddings_equal_those_of_whole_windows(shape, hops, chunks):
    encoder = encoder_of(shape)
    hop = hops * shape.stride
    samples = torch.randn(shape.channels, shape.window + 4 * hop, dtype=torch.float64)
    wanted = windowed(encoder, samples, hop)
    stream = WatchStream(encoder, hop)
    found, at, turn = {}, 0, 0
    while at < samples.shape[1]:
        size = max(chunks[turn % len(chunks)], turn % 2)  # whatever the chunks
        found |= dict(stream.push(samples[:, at : at + size]))
        at, turn = at + size, turn + 1
    assert found.keys() >= wanted.keys()
    for start, embedding in wanted.items():
        assert torch.allclose(found[start], embedding, rtol=0, atol=1e-9)


@torch.no_grad()
def test_in_float32_a_long_stream_does_not_drift():
    shape = WatchShape(16, 1000, 64, Stage(32, 9, 3), (Stage(48, 9, 3), Stage(64, 9, 3),
                       Stage(96, 5, 2)))  # fmt: skip
    encoder = encoder_of(shape).float()
    samples = torch.randn(16, 100_000)
    found = dict(WatchStream(encoder, 216).push(samples))
    start = 216 * 455  # one of the last: the running sum has not drifted
    whole = encoder.embed(samples[None, :, start : start + 1000])[0]
    assert torch.allclose(found[start], whole, rtol=1e-4, atol=1e-4)


def test_a_quantized_encoder_streams_to_the_same_codes(encoder, make_windows):
    quantized = quantize_encoder(encoder, make_windows(0), "w8a8", seed=0)
    samples = torch.from_numpy(np.concatenate(list(make_windows(1)), axis=1))  # 8, 64 x 200
    hop = 5 * encoder.shape.stride
    found = dict(WatchStream(quantized.twin, hop).push(samples))
    windows = samples.unfold(1, 200, hop).permute(1, 0, 2).contiguous().numpy()  # N C T
    streamed = np.stack([found[hop * n].numpy() for n in range(len(windows))])
    codes = np.round(streamed / quantized.scale) + quantized.zero_point
    moved = np.abs(codes - quantized.codes(windows))
    assert moved.max() <= 1  # where a mean lies between two codes, the order of sums decides
    assert moved.mean() < 0.01


def test_from_raw_samples_to_embeddings_nothing_needs_more_than_the_stream_so_far():
    """Filters, compression and the wearer's normalisation are sample by sample as well."""
    rng = np.random.default_rng(0)
    front_end = FrontEnd(
        rate_hz=200.0, sos=design_sos(FilterDesign(highpass_hz=15, notch_hz=(50.0,)), 200.0),
        compression="log", compression_floor=0.5, offset=[0.1] * 4, scale=[0.8] * 4,
    )  # fmt: skip
    wearer = UserProfile(
        user="u", rate_hz=200.0, seconds=1.0, offset=[0.2, 0, -0.1, 0], scale=[0.5, 1, 2, 1.5]
    )
    encoder = encoder_of(WatchShape(4, 100, 8, Stage(6, 9, 3), (Stage(10, 5, 2),))).float()
    raw = rng.normal(0, 2, (1000, 4))
    whole = front_end.normalise(front_end.filtered(raw), wearer)  # T C
    wanted = windowed(encoder, torch.from_numpy(whole.T.copy()), 12)
    samples, windows, found = front_end.stream(), WatchStream(encoder, 12), {}
    for chunk in np.split(raw, [1, 7, 60, 500, 501, 960]):
        normalised = front_end.normalise(samples.push(chunk), wearer)
        found |= dict(windows.push(torch.from_numpy(normalised.T.copy())))
    assert found.keys() >= wanted.keys()
    for start, embedding in wanted.items():
        assert torch.allclose(found[start], embedding, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hop", [-6, 0, 1, 5, 7])
def test_a_hop_off_the_grid_of_frames_is_refused_with_the_nearest_one(hop):
    shape = WatchShape(4, 100, 8, Stage(6, 9, 3), (Stage(10, 5, 2),))
    with pytest.raises(ConfigError, match=r"stride 6.*nearest is 6") as error:
        WatchStream(encoder_of(shape), hop)
    assert "\n" not in str(error.value)


@given(shape=shapes(), hop=st.integers(1, 1000))
def test_the_nearest_hop_is_on_the_grid_and_within_half_a_stride(shape, hop):
    near = stream_hop(shape, hop)
    assert require_hop(shape, near) == near
    assert abs(near - hop) <= shape.stride / 2 or near == shape.stride


@settings(max_examples=40, deadline=None)
@given(shape=shapes(), hops=st.integers(1, 3))
def test_the_stated_cost_of_a_hop_is_what_streaming_computes(shape, hops):
    encoder = encoder_of(shape)
    hop = hops * shape.stride
    stream = WatchStream(encoder, hop)
    warm = -(-shape.window // hop) * hop + hop
    stream.push(torch.zeros(shape.channels, warm, dtype=torch.float64))
    counted = []

    def count(conv: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> None:
        counted.append(out.numel() * conv.weight[0].numel())

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    (_,) = stream.push(torch.zeros(shape.channels, hop, dtype=torch.float64))
    assert sum(counted) == macs_per_hop(shape, hop)


@settings(max_examples=40, deadline=None)
@given(shape=shapes(), pushes=st.integers(1, 12))
def test_no_more_is_held_than_stated_and_never_a_whole_window_of_samples(shape, pushes):
    stream = WatchStream(encoder_of(shape), shape.stride)
    stream.push(torch.zeros(shape.channels, shape.window, dtype=torch.float64))
    for _ in range(pushes):
        stream.push(torch.zeros(shape.channels, shape.stride, dtype=torch.float64))
        sums = 4 * shape.stages[-1].width
        assert stream.held_values() + sums <= stream_state_bytes(shape)
    assert stream_state_bytes(shape) < stream_peak_bytes(shape)


def test_parameters_and_bytes_equal_a_count_over_the_folded_layers():
    shape = WatchShape(4, 100, 8, Stage(6, 9, 3), (Stage(10, 5, 2), Stage(12, 3, 1)))
    convs = [m for m in WatchEncoder(shape).modules() if isinstance(m, nn.Conv2d)]
    weights = sum(conv.weight.numel() for conv in convs)
    biases = sum(conv.bias.numel() for conv in convs)
    assert parameters(shape) == weights + biases
    assert weight_bytes(shape) == weights + 4 * biases
