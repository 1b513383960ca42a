"""The three encodings: what each promises, for any samples."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from embridge.benchmarks.codec_bench import bench_codec, step_of, text
from embridge.device.errors import RecordingError
from embridge.firmware_bridge import Encoding, decode_samples, encode_samples
from embridge.firmware_bridge.codec import guaranteed_bytes
from embridge.firmware_bridge.frames import MAX_PAYLOAD_BYTES
from embridge.firmware_bridge.rice import ESCAPE, ESCAPE_BITS, HEADER_BITS, encode_rice

LOW, HIGH = -32768, 32767


@st.composite
def blocks(draw: st.DrawFn) -> NDArray[np.int16]:
    """(T, C) int16: anything, near zero, at the limits, or smooth enough for order 2."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 5)))
    low, high = draw(st.sampled_from([(LOW, HIGH), (-3, 3), (-200, 200), (HIGH - 2, HIGH)]))
    block = draw(arrays(np.int16, shape, elements=st.integers(low, high)))
    for _ in range(draw(st.integers(0, 2))):
        block = np.cumsum(block, axis=0, dtype=np.int64).clip(LOW, HIGH).astype(np.int16)
    return block


def residuals(x: NDArray[np.int64], order: int) -> list[int]:
    """One channel by the words of PROTOCOL.md: u of each sample."""
    us = []
    for t in range(len(x)):
        limited = min(order, t)
        r = int(x[t])
        if limited == 1:
            r -= int(x[t - 1])
        elif limited == 2:
            r -= 2 * int(x[t - 1]) - int(x[t - 2])
        us.append(2 * r if r >= 0 else -2 * r - 1)
    return us


def rice_bits(us: list[int], k: int) -> int:
    """Bits of quotients and remainders, by the words of PROTOCOL.md."""
    return sum(16 + 18 if u >> k >= 15 else (u >> k) + 1 + k for u in us)


def fields(payload: bytes, n_ch: int) -> list[tuple[int, int]]:
    """Order and k of each channel."""
    bits = "".join(f"{byte:08b}" for byte in payload)
    heads = (int(bits[6 * c : 6 * c + 6], 2) for c in range(n_ch))
    return [divmod(head, 16) for head in heads]


@given(blocks(), st.sampled_from([Encoding.INT16, Encoding.RICE]))
def test_an_exact_encoding_gives_back_every_bit(block, encoding):
    payload = encode_samples(block, encoding)
    back = decode_samples(payload, encoding, *block.shape)
    assert back.dtype == np.int16
    assert np.array_equal(back, block)


@given(blocks())
def test_int8_is_off_by_half_a_scale_at_most_and_exact_up_to_127(block):
    payload = encode_samples(block, Encoding.INT8)
    assert len(payload) == guaranteed_bytes(Encoding.INT8, *block.shape)
    scale = np.frombuffer(payload, "<u2", block.shape[1]).astype(np.int64)  # C
    magnitude = np.abs(block.astype(np.int64)).max(axis=0)
    assert np.array_equal(scale, np.maximum(1, np.ceil(magnitude / 127)))
    back = decode_samples(payload, Encoding.INT8, *block.shape)
    off = np.abs(back.astype(np.int64) - block)  # T C
    assert (2 * off <= scale).all()
    assert not off[:, magnitude <= 127].any()


@given(blocks())
def test_the_rice_encoder_chooses_as_the_specification_says(block):
    chosen = fields(encode_rice(block), block.shape[1])
    for x, (order, k) in zip(block.astype(np.int64).T, chosen, strict=True):
        sums = [sum(residuals(x, candidate)) for candidate in range(3)]
        assert order == sums.index(min(sums))
        bits = [rice_bits(residuals(x, order), candidate) for candidate in range(16)]
        assert k == bits.index(min(bits))


@given(blocks())
def test_the_length_of_a_rice_payload_is_that_of_its_codes(block):
    payload = encode_rice(block)
    bits = 6 * block.shape[1] + sum(
        rice_bits(residuals(x, order), k)
        for x, (order, k) in zip(
            block.astype(np.int64).T, fields(payload, block.shape[1]), strict=True
        )
    )
    assert len(payload) == -(-bits // 8)


@given(blocks())
def test_rice_takes_at_most_18_bits_a_sample_and_6_a_channel(block):
    """An eighth over int16, for noise over the whole range.

    k = 15 costs 16 bits and the quotient u >> 15. The order has the least sum of u, so no more than
    order 0, where u < 2 ** 16: the quotients of T samples sum up to less than 2 T. And no u reaches
    2 ** 18, so that none escapes. The best k is no longer than that.
    """
    n_samp, n_ch = block.shape
    assert 8 * len(encode_rice(block)) <= n_ch * (HEADER_BITS + 18 * n_samp - 1) + 7


def test_a_value_far_from_the_others_escapes():
    block = np.zeros((20, 1), np.int16)
    block[7] = HIGH
    payload = encode_rice(block)
    assert fields(payload, 1) == [(0, 0)]
    assert len(payload) == -(-(HEADER_BITS + 19 + ESCAPE + 1 + ESCAPE_BITS) // 8)
    assert np.array_equal(decode_samples(payload, Encoding.RICE, 20, 1), block)


def test_second_order_residuals_of_the_extremes_fit_an_escape():
    """An encoder would take order 0; a decoder must still follow one that does not."""
    block = np.array([HIGH, LOW, HIGH, LOW], np.int64)
    us = residuals(block, 2)
    assert max(us) < 2**ESCAPE_BITS
    bits = "100000" + 4 * ("1" * ESCAPE + "0") + "".join(f"{u:018b}" for u in us)
    bits += "0" * (-len(bits) % 8)
    payload = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    assert decode_samples(payload, Encoding.RICE, 4, 1).ravel().tolist() == block.tolist()


@given(st.binary(max_size=60), st.integers(0, 255), st.integers(0, 255), st.sampled_from(Encoding))
def test_any_bytes_are_samples_or_a_value_error(payload, n_samp, n_ch, encoding):
    try:
        samples = decode_samples(payload, encoding, n_samp, n_ch)
    except ValueError:
        return
    assert samples.shape == (n_samp, n_ch)
    assert samples.dtype == np.int16


@pytest.mark.parametrize("encoding", Encoding)
def test_the_largest_block_of_sixteen_channels_passes(encoding):
    rng = np.random.default_rng(0)
    block = rng.integers(LOW, HIGH, (255, 16), np.int16, endpoint=True)
    payload = encode_samples(block, encoding)
    assert encoding is Encoding.RICE or len(payload) <= MAX_PAYLOAD_BYTES
    back = decode_samples(payload, encoding, 255, 16)
    assert encoding is Encoding.INT8 or np.array_equal(back, block)


def test_the_step_of_a_converter_is_found_in_rounded_values():
    """As NinaPro DB1 has them: 12 bits of 10 V, printed with four decimals."""
    codes = np.random.default_rng(0).rayleigh(40, (5000, 2)).astype(int)
    step = step_of(np.round(codes * 10 / 4096, 4).astype(np.float32))
    assert step == pytest.approx(10 / 4096, rel=1e-4)


def test_no_step_is_found_where_there_is_none():
    rng = np.random.default_rng(0)
    assert step_of(rng.standard_normal((2000, 2)).astype(np.float32)) is None
    assert step_of(np.zeros((2000, 2), np.float32)) is None
    beyond_int16 = rng.integers(-(2**20), 2**20, (2000, 2)).astype(np.float32)
    assert step_of(np.concatenate([beyond_int16, np.arange(200.0).reshape(100, 2)])) is None


def test_without_recordings_the_encodings_meet_a_synthetic_signal():
    result = bench_codec(frames_per_recording=50, rounds=1)
    (row,) = result["recordings"]
    assert row["source"] == "synthetic signal"
    assert row["frames"] == 50
    of = row["encodings"]
    assert of["int16"]["bits_per_sample"] == 16
    assert of["int8"]["bits_per_sample"] == 8.8  # 2 of 22 bytes are a scale
    assert (of["int16"]["exact"], of["int8"]["exact"], of["rice"]["exact"]) == (True, False, True)
    assert of["rice"]["share"] < 0.7
    assert of["int8"]["snr_db"] > 40
    assert min(result["framing"][f"{way}code_frames_per_s"] for way in ("en", "de")) > 0
    assert "synthetic signal: 1 recordings, 16 channels, 2000 Hz, 50 frames" in text(result)


def test_recordings_are_measured_with_the_count_found_in_them(shared_data: Path):
    file = shared_data / "ninapro_db1_e1" / "S1_A1_E1.mat"
    (row,) = bench_codec([file], frames_per_recording=200, rounds=1)["recordings"]
    assert (row["source"], row["resolution"]) == ("ninapro-db1", "found")
    assert row["unit_per_count"] == [pytest.approx(10 / 4096, rel=1e-4)] * 2
    assert row["encodings"]["rice"]["exact"]
    assert row["encodings"]["rice"]["bits_per_sample"] < row["zlib_frame_bits_per_sample"]


def test_a_recording_shorter_than_a_frame_is_refused(shared_data: Path):
    file = shared_data / "emg2pose_fixture" / "test_data.hdf5"
    with pytest.raises(RecordingError, match="expected a frame of 100000 at least"):
        bench_codec([file], samples_per_frame=100_000, rounds=1)
