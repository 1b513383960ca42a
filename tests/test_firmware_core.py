"""The firmware's C core against the byte vectors and against Python, both ways."""

import ctypes
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from embridge.firmware_bridge import boards, codec, frames

VECTORS = boards.FIRMWARE.parent / "vectors"
FRAMES = json.loads((VECTORS / "frames.json").read_text())
CODEC = json.loads((VECTORS / "codec.json").read_text())
STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion")
SOURCES = ("emb_crc32.c", "emb_cobs.c", "emb_frame.c", "emb_codec.c", "emb_rice.c")
PACKET = frames.MAX_PACKET_BYTES
GUARD = b"\xa5" * 16  # behind every output buffer: nothing may be written there


class CFrame(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("seq", ctypes.c_uint16),
        ("sample_index", ctypes.c_uint32),
        ("time_us", ctypes.c_uint32),
        ("n_ch", ctypes.c_uint8),
        ("n_samp", ctypes.c_uint8),
        ("payload_bytes", ctypes.c_size_t),
        ("payload", ctypes.POINTER(ctypes.c_uint8)),
    )

    def value(self) -> tuple[Any, ...]:
        payload = ctypes.string_at(self.payload, self.payload_bytes)
        return (*(getattr(self, name) for name, *_ in self._fields_[:7]), payload)


class CReceiver(ctypes.Structure):
    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("used", ctypes.c_size_t),
        ("skipping", ctypes.c_bool),
        ("frames_ok", ctypes.c_uint32),
        ("frames_corrupt", ctypes.c_uint32),
    )


class Core:
    """The C functions with Python values."""

    def __init__(self, library: Path) -> None:
        self.c = ctypes.CDLL(str(library))
        for name in ("emb_cobs_encode", "emb_pack", "emb_encode"):
            getattr(self.c, name).restype = ctypes.c_size_t
        for name in ("emb_cobs_decode", "emb_unpack", "emb_decode", "emb_receiver_push"):
            getattr(self.c, name).restype = ctypes.c_bool

    def pack(self, frame: tuple[Any, ...]) -> bytes:
        *header, payload = frame
        source = (ctypes.c_uint8 * len(payload)).from_buffer_copy(payload)
        out = _buffer(len(payload) + 18)
        c_frame = CFrame(*header, len(payload), source)
        return _taken(out, self.c.emb_pack(ctypes.byref(c_frame), out))

    def unpack(self, packed: bytes) -> tuple[Any, ...] | None:
        frame = CFrame()
        held = ctypes.create_string_buffer(packed, max(1, len(packed)))
        intact = self.c.emb_unpack(held, ctypes.c_size_t(len(packed)), ctypes.byref(frame))
        return frame.value() if intact else None

    def cobs_encode(self, data: bytes, *, in_place: bool) -> bytes:
        room = max(1, len(data) + (len(data) + 253) // 254)
        out = _buffer(room)
        source: Any = ctypes.create_string_buffer(data, max(1, len(data)))
        if in_place:
            ctypes.memmove(ctypes.addressof(out) + room - len(data), data, len(data))
            source = ctypes.byref(out, room - len(data))
        return _taken(out, self.c.emb_cobs_encode(source, ctypes.c_size_t(len(data)), out))

    def cobs_decode(self, data: bytes) -> bytes | None:
        out = _buffer(len(data))
        ctypes.memmove(out, data, len(data))  # in place
        size = ctypes.c_size_t()
        if not self.c.emb_cobs_decode(out, ctypes.c_size_t(len(data)), out, ctypes.byref(size)):
            return None
        return _taken(out, size.value)

    def encode(self, samples: NDArray[np.int16], encoding: int, limit: int) -> bytes:
        n_samp, n_ch = samples.shape
        out, size = _buffer(limit), ctypes.c_size_t(limit)
        x = np.ascontiguousarray(samples)
        source = x.ctypes.data_as(ctypes.c_void_p)
        return _taken(out, self.c.emb_encode(encoding, source, n_samp, n_ch, out, size))

    def decode(
        self, payload: bytes, encoding: int, n_samp: int, n_ch: int
    ) -> NDArray[np.int16] | None:
        out = _buffer(2 * n_samp * n_ch)
        source = ctypes.create_string_buffer(payload, max(1, len(payload)))
        size = ctypes.c_size_t(len(payload))
        intact = self.c.emb_decode(encoding, source, size, n_samp, n_ch, out)
        samples = np.frombuffer(_taken(out, 2 * n_samp * n_ch), np.int16)
        return samples.reshape(n_samp, n_ch) if intact else None

    def receive(self, line: bytes) -> tuple[list[Any], int, int]:
        buffer, receiver, frame = _buffer(PACKET), CReceiver(), CFrame()
        self.c.emb_receiver_init(ctypes.byref(receiver), buffer, ctypes.c_size_t(PACKET))
        got = [
            frame.value()
            for byte in line
            if self.c.emb_receiver_push(ctypes.byref(receiver), byte, ctypes.byref(frame))
        ]
        _taken(buffer, PACKET)
        return got, receiver.frames_ok, receiver.frames_corrupt


def _buffer(size: int) -> Any:
    return ctypes.create_string_buffer(bytes(size) + GUARD, size + len(GUARD))


def _taken(buffer: Any, size: int) -> bytes:
    assert buffer.raw.endswith(GUARD)
    return bytes(buffer.raw[:size])


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Core:
    if shutil.which("cc") is None:
        pytest.skip("no `cc` on this machine: the C core cannot be compiled for it")
    library = tmp_path_factory.mktemp("core") / "core.so"
    sources = [str(boards.FIRMWARE / name) for name in SOURCES]
    subprocess.run(["cc", *STRICT, "-shared", "-fPIC", *sources, "-o", str(library)], check=True)
    return Core(library)


def _fields(vector: dict[str, Any]) -> tuple[Any, ...]:
    names = ("type", "flags", "seq", "sample_index", "time_us", "n_ch", "n_samp")
    return (*(vector[name] for name in names), bytes.fromhex(vector["payload"]))


@pytest.mark.parametrize("vector", FRAMES["frames"], ids=lambda vector: vector["name"])
def test_c_packs_and_unpacks_the_vector_to_the_byte(core: Core, vector: dict[str, Any]) -> None:
    packed, serial = bytes.fromhex(vector["packed"]), bytes.fromhex(vector["serial"])
    assert core.pack(_fields(vector)) == packed
    assert core.cobs_encode(packed, in_place=True) + b"\0" == serial
    assert core.unpack(packed) == _fields(vector)
    assert core.receive(serial) == ([_fields(vector)], 1, 0)


@pytest.mark.parametrize("vector", FRAMES["refused"], ids=lambda vector: vector["name"])
def test_c_refuses_the_vector_and_reads_the_next_frame(core: Core, vector: dict[str, Any]) -> None:
    next_one = FRAMES["frames"][0]
    if "packed" in vector:
        assert core.unpack(bytes.fromhex(vector["packed"])) is None
    line = bytes.fromhex(vector["serial"] + next_one["serial"])
    assert core.receive(line) == ([_fields(next_one)], 1, 1)


@pytest.mark.parametrize("vector", CODEC["vectors"], ids=lambda vector: vector["name"])
def test_c_encodes_and_decodes_the_vector_to_the_byte(core: Core, vector: dict[str, Any]) -> None:
    samples, payload = np.array(vector["samples"], np.int16), bytes.fromhex(vector["payload"])
    if not vector.get("decode_only"):
        assert core.encode(samples, vector["encoding"], len(payload)) == payload
        assert core.encode(samples, vector["encoding"], len(payload) - 1) == b""
    decoded = core.decode(payload, vector["encoding"], *samples.shape)
    assert decoded is not None
    assert decoded.tolist() == vector.get("decoded", vector["samples"])


@pytest.mark.parametrize("vector", CODEC["refused"], ids=lambda vector: vector["name"])
def test_c_refuses_the_payload(core: Core, vector: dict[str, Any]) -> None:
    size = (vector["encoding"], vector["n_samp"], vector["n_ch"])
    assert core.decode(bytes.fromhex(vector["payload"]), *size) is None


payloads = st.one_of(
    st.binary(max_size=600),
    st.integers(0, 1200).map(lambda n: b"\xff" * n),
    st.lists(st.sampled_from((b"\0", b"\x01" * 253, b"\x02" * 254, b"\x03")), max_size=8).map(
        b"".join
    ),
)
u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
any_frame = st.builds(
    frames.Frame, st.sampled_from(frames.FrameType), u8, u16, u32, u32, u8, u8, payloads
)


@given(data=payloads)
def test_c_cobs_is_that_of_python(core: Core, data: bytes) -> None:
    assert core.cobs_encode(data, in_place=False) == cobs.encode(data)
    assert core.cobs_encode(data, in_place=True) == cobs.encode(data)
    try:
        expected: bytes | None = cobs.decode(data)
    except cobs.DecodeError:
        expected = None
    assert core.cobs_decode(data) == expected


@given(frame=any_frame)
def test_c_and_python_pack_the_same_bytes(core: Core, frame: frames.Frame) -> None:
    packed = core.pack(frame)
    assert packed == frames.pack(frame)
    assert core.unpack(packed) == frame


def test_c_packs_no_more_than_8192_bytes_of_payload(core: Core) -> None:
    frame = frames.Frame(frames.FrameType.DATA, payload=bytes(8193))
    assert core.pack(frame) == b""
    longest = frame._replace(payload=bytes(8192))
    assert core.unpack(core.pack(longest)) == longest
    too_long = frames.HEADER.pack(*frame[:7]) + frame.payload
    too_long += frames.CRC.pack(int(core.c.emb_crc32(0, too_long, len(too_long))) % 2**32)
    assert core.unpack(too_long) is None


@given(
    pieces=st.lists(
        st.one_of(any_frame.map(frames.encode), st.binary(max_size=40), st.just(b"\x05" * 9000)),
        max_size=5,
    ),
    damage=st.lists(st.tuples(st.integers(0, 10**6), u8), max_size=3),
)
@settings(max_examples=60)
def test_c_receives_what_python_receives_through_damage(
    core: Core, pieces: list[bytes], damage: list[tuple[int, int]]
) -> None:
    line = bytearray(b"".join(pieces))
    for place, value in damage:
        if line:
            line[place % len(line)] = value
    decoder = frames.Decoder()
    expected = decoder.feed(bytes(line))
    counts = (decoder.frames_ok, decoder.frames_corrupt)
    assert core.receive(bytes(line)) == (expected, *counts)


def _walk(n_samp: int, n_ch: int, bits: int, seed: int) -> NDArray[np.int16]:
    steps = np.random.default_rng(seed).integers(-(2**bits), 2**bits, (n_samp, n_ch))
    return steps.cumsum(axis=0).clip(-(2**15), 2**15 - 1).astype(np.int16)


blocks = st.builds(_walk, st.integers(1, 40), st.integers(1, 20), st.integers(0, 15), u32) | arrays(
    np.int16, st.tuples(st.integers(1, 5), st.integers(1, 3))
)


@given(samples=blocks, encoding=st.sampled_from(codec.Encoding))
def test_c_and_python_encode_the_same_payload(
    core: Core, samples: NDArray[np.int16], encoding: codec.Encoding
) -> None:
    payload = codec.encode_samples(samples, encoding)
    assert core.encode(samples, encoding, len(payload)) == payload
    assert core.encode(samples, encoding, len(payload) - 1) == b""
    decoded = core.decode(payload, encoding, *samples.shape)
    assert np.array_equal(decoded, codec.decode_samples(payload, encoding, *samples.shape))


@pytest.mark.parametrize("encoding", codec.Encoding)
def test_c_encodes_the_largest_frames(core: Core, encoding: codec.Encoding) -> None:
    for shape in ((255, 255), (255, 1), (1, 255)):
        samples = np.random.default_rng(0).integers(-32768, 32767, shape, np.int16)
        payload = codec.encode_samples(samples, encoding)
        assert core.encode(samples, encoding, len(payload)) == payload


@given(
    samples=blocks,
    damage=st.lists(st.tuples(st.integers(0, 10**6), u8), max_size=3),
    cut=st.integers(-2, 2),
    encoding=st.sampled_from(codec.Encoding),
)
def test_c_and_python_accept_the_same_payloads(
    core: Core,
    samples: NDArray[np.int16],
    damage: list[tuple[int, int]],
    cut: int,
    encoding: codec.Encoding,
) -> None:
    payload = bytearray(codec.encode_samples(samples, encoding))
    for place, value in damage:
        payload[place % len(payload)] = value
    payload = payload[: len(payload) + cut] + bytes(max(0, cut))
    try:
        expected = codec.decode_samples(bytes(payload), encoding, *samples.shape)
    except ValueError:
        assert core.decode(bytes(payload), encoding, *samples.shape) is None
    else:
        assert np.array_equal(core.decode(bytes(payload), encoding, *samples.shape), expected)
