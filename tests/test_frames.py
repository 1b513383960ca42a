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
    Encoding,
    Frame,
    FrameType,
    HandshakeError,
    data_frame,
    decode,
    decode_data,
    encode,
    frames,
    pack,
    unpack,
)
from embridge.firmware_bridge.frames import MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES

any_frame = st.builds(
    Frame,
    st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    seq=st.integers(0, 2**16 - 1),
    sample_index=st.integers(0, 2**32 - 1),
    time_us=st.integers(0, 2**32 - 1),
    n_ch=st.integers(0, 255),
    n_samp=st.integers(0, 255),
    payload=st.binary(max_size=700),
)


def numbered(count: int, payload_bytes: int = 12) -> list[Frame]:
    """Frames that differ, with zeros in them, as counts near zero have."""
    return [
        Frame(FrameType.DATA, 0, seq, 3 * seq, 0, 2, 3, bytes([seq, 0] * (payload_bytes // 2)))
        for seq in range(count)
    ]


def test_the_example_in_the_docstring_is_exact():
    assert doctest.testmod(frames) == (0, 2)


@given(any_frame)
def test_any_frame_survives_the_wire(frame):
    line = encode(frame)
    assert line.index(0) == len(line) - 1
    assert len(line) <= frames.wire_bytes(len(frame.payload))
    assert decode(line[:-1]) == unpack(pack(frame)) == frame


@given(
    st.integers(1, 255),
    st.integers(1, 16),
    st.integers(0, 2**32 - 1),
    st.sampled_from([Encoding.INT16, Encoding.RICE]),
)
def test_samples_survive_the_wire_bit_for_bit(n_samp, n_ch, seed, encoding):
    limits = np.iinfo(np.int16)
    rng = np.random.default_rng(seed)
    samples = rng.integers(limits.min, limits.max, (n_samp, n_ch), np.int16, endpoint=True)
    sent = DataFrame(7, seed, samples, time_us=seed)
    back = decode_data(unpack(pack(data_frame(sent, encoding))))
    assert np.array_equal(back.samples, samples)
    assert (back.seq, back.sample_index, back.time_us, back.overrun) == (7, seed, seed, False)


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
    body = frames.HEADER.pack(9, 0, 0, 0, 0, 0, 0)
    packed = body + frames.CRC.pack(frames.zlib.crc32(body))
    with pytest.raises(ValueError, match="unknown type 9"):
        decode(frames.cobs.encode(packed))


@pytest.mark.parametrize(
    "samples",
    [np.zeros((0, 2), np.int16), np.zeros((256, 1), np.int16), np.zeros((2, 2), np.int32)],
)
def test_samples_that_are_no_int16_block_are_refused(samples):
    with pytest.raises(ValueError, match="expected"):
        data_frame(DataFrame(0, 0, samples))


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (Frame(FrameType.DATA, FLAG_OVERRUN | 9, n_ch=1, n_samp=1, payload=b"ab"), "9 is not a"),
        (Frame(FrameType.DATA, 0, n_ch=2, n_samp=2, payload=bytes(6)), "6 bytes for 2 samples"),
        (Frame(FrameType.DATA, 0, n_ch=0, n_samp=2), "2 samples of 0 channels"),
        (Frame(FrameType.DATA, 1, n_ch=1, n_samp=1, payload=b"\0\0a"), "scale of 0"),
        (Frame(FrameType.DATA, 2, n_ch=1, n_samp=9, payload=b"\0"), "hold no 9 samples"),
        (Frame(FrameType.DATA, 2, n_ch=1, n_samp=1, payload=b"\xc0"), "order 3"),
        (Frame(FrameType.DATA, 2, n_ch=1, n_samp=1, payload=b"\3\xff\xff\0"), "quotient"),
        (Frame(FrameType.DATA, 2, n_ch=1, n_samp=1, payload=b"\0\0"), "7 bits in 2 bytes"),
        (Frame(FrameType.DATA, 2, n_ch=1, n_samp=1, payload=b"\3\xff"), "end within"),
        (Frame(FrameType.DATA, 2, n_ch=1, n_samp=2, payload=b"\x7c\1"), "in 2 bytes"),
    ],
)
def test_an_intact_frame_that_cannot_be_read_says_why(frame, complaint):
    with pytest.raises(HandshakeError, match=complaint):
        decode_data(frame)
