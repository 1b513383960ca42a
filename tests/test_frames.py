"""The codec: exact bytes, round trips, and what damage can and cannot do."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.firmware_bridge import (
    FLAG_OVERRUN,
    DataFrame,
    Decoder,
    Frame,
    FrameType,
    HandshakeError,
    decode,
    decode_data,
    encode,
    encode_data,
    frames,
)
from embridge.firmware_bridge.frames import MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES

any_frame = st.builds(
    Frame,
    st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    seq=st.integers(0, 2**16 - 1),
    sample_index=st.integers(0, 2**32 - 1),
    n_ch=st.integers(0, 255),
    n_samp=st.integers(0, 255),
    payload=st.binary(max_size=700),
)


def numbered(count: int, payload_bytes: int = 12) -> list[Frame]:
    """Frames that differ, with zeros in them, as counts near zero have."""
    return [
        Frame(FrameType.DATA, 0, seq, 3 * seq, 2, 3, bytes([seq, 0] * (payload_bytes // 2)))
        for seq in range(count)
    ]


def test_the_example_in_the_docstring_is_exact():
    assert doctest.testmod(frames) == (0, 1)


def test_golden_bytes_of_a_data_frame():
    samples = np.array([[1, -1]], np.int16)
    golden = bytes.fromhex("04011001021401010402010107ffffb7ae613b00")
    assert encode_data(DataFrame(1, 20, samples, overrun=True)) == golden
    back = decode_data(decode(golden[:-1]))
    assert (back.seq, back.sample_index, back.overrun) == (1, 20, True)
    assert np.array_equal(back.samples, samples)
    assert back.samples.dtype == np.int16


@given(any_frame)
def test_any_frame_survives_the_wire(frame):
    line = encode(frame)
    assert line.index(0) == len(line) - 1
    assert len(line) <= frames.wire_bytes(len(frame.payload))
    assert decode(line[:-1]) == frame


@given(st.integers(1, 255), st.integers(1, 16), st.integers(0, 2**32 - 1))
def test_samples_survive_the_wire_bit_for_bit(n_samp, n_ch, seed):
    limits = np.iinfo(np.int16)
    rng = np.random.default_rng(seed)
    samples = rng.integers(limits.min, limits.max, (n_samp, n_ch), np.int16, endpoint=True)
    back = decode_data(decode(encode_data(DataFrame(7, seed, samples))[:-1]))
    assert np.array_equal(back.samples, samples)
    assert not back.overrun


@given(st.lists(st.one_of(any_frame.map(encode), st.binary(max_size=40)), max_size=12), st.data())
def test_the_chunking_of_the_bytes_does_not_matter(pieces, data):
    line = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(line)), max_size=20)))
    whole, chunked = Decoder(), Decoder()
    expected = whole.feed(line)
    bounds = zip([0, *cuts], [*cuts, len(line)], strict=True)
    assert [frame for a, b in bounds for frame in chunked.feed(line[a:b])] == expected
    assert chunked.frames_corrupt == whole.frames_corrupt
    assert chunked.frames_ok == len(expected)


@given(st.data())
def test_a_damaged_byte_costs_only_the_frames_it_touches_and_is_never_missed(data):
    sent = numbered(6)
    lines = [encode(frame) for frame in sent]
    hit = data.draw(st.integers(0, 5))
    offset = data.draw(st.integers(0, len(lines[hit]) - 1))
    damage = data.draw(st.sampled_from(["flip", "drop", "insert"]))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != lines[hit][offset]))
    before, after = lines[hit][:offset], lines[hit][offset + (damage != "insert") :]
    lines[hit] = before + (b"" if damage == "drop" else bytes([value])) + after
    decoder = Decoder()
    received = decoder.feed(b"".join(lines) + b"\0")
    touched = {hit, hit + 1}  # the next one too, when the delimiter between them was hit
    assert [frame for frame in sent if frame not in received and frame.seq not in touched] == []
    assert [frame for frame in received if frame not in sent] == []
    assert received == sorted(received, key=lambda frame: frame.seq)


def test_every_single_bit_error_in_a_frame_is_detected():
    line = encode(numbered(1, payload_bytes=64)[0])
    for bit in range(8 * (len(line) - 1)):
        damaged = bytearray(line)
        damaged[bit // 8] ^= 1 << bit % 8
        decoder = Decoder()
        assert decoder.feed(bytes(damaged)) == []
        assert decoder.frames_corrupt >= 1


def test_noise_without_a_delimiter_fills_no_memory_and_counts_once():
    decoder = Decoder()
    for _ in range(100):
        assert decoder.feed(b"\x01" * 1000) == []
        assert len(decoder._tail) <= MAX_PACKET_BYTES
    frame = numbered(1)[0]
    assert decoder.feed(b"\0" + encode(frame)) == [frame]
    assert decoder.frames_corrupt == 1


def test_the_longest_frame_passes():
    frame = Frame(FrameType.DATA, payload=bytes(range(1, 256)) * 32 + bytes(32))
    assert len(frame.payload) == MAX_PAYLOAD_BYTES
    assert Decoder().feed(encode(frame)) == [frame]
    with pytest.raises(ValueError, match="8193 bytes does not fit"):
        encode(Frame(FrameType.DATA, payload=frame.payload + b"\1"))


def test_an_unknown_frame_type_is_refused():
    body = frames.HEADER.pack(9, 0, 0, 0, 0, 0)
    packed = body + frames.CRC.pack(frames.zlib.crc32(body))
    with pytest.raises(ValueError, match="9 is not a valid FrameType"):
        decode(frames.cobs.encode(packed))


@pytest.mark.parametrize(
    "samples",
    [np.zeros((0, 2), np.int16), np.zeros((256, 1), np.int16), np.zeros((2, 2), np.int32)],
)
def test_samples_that_are_no_int16_block_are_refused(samples):
    with pytest.raises(ValueError, match="expected"):
        encode_data(DataFrame(0, 0, samples))


def test_an_encoding_the_host_cannot_read_is_named():
    with pytest.raises(HandshakeError, match="encoding 2"):
        decode_data(Frame(FrameType.DATA, FLAG_OVERRUN | 2, 0, 0, 1, 1, b"\0\0"))


def test_a_payload_of_another_size_than_declared_is_refused():
    with pytest.raises(HandshakeError, match="sent 6 bytes for 2 samples of 2 channels"):
        decode_data(Frame(FrameType.DATA, 0, 0, 0, 2, 2, bytes(6)))
