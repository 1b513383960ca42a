"""The golden bytes that the C core is held to as well, against the Python code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge.firmware_bridge import (
    Control,
    Decoder,
    Encoding,
    Event,
    Frame,
    FrameType,
    HandshakeError,
    StreamInfo,
    decode,
    decode_data,
    decode_samples,
    encode,
    encode_samples,
    pack,
    unpack,
)

VECTORS = Path(__file__).resolve().parent.parent / "firmware_bridge" / "vectors"
FRAMES = json.loads((VECTORS / "frames.json").read_text())
CODEC = json.loads((VECTORS / "codec.json").read_text())


def cases(entries: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", entries, ids=lambda case: case["name"])


def frame_of(case: dict[str, Any]) -> Frame:
    fields = ("flags", "seq", "sample_index", "time_us", "n_ch", "n_samp")
    numbers = (case[name] for name in fields)
    return Frame(FrameType(case["type"]), *numbers, bytes.fromhex(case["payload"]))


@cases(FRAMES["frames"])
def test_a_frame_has_the_bytes_of_its_vector_both_ways(case):
    frame, packed, serial = frame_of(case), *(bytes.fromhex(case[k]) for k in ("packed", "serial"))
    assert pack(frame) == packed
    assert encode(frame) == serial
    assert unpack(packed) == decode(serial[:-1]) == frame


@cases([case for case in FRAMES["frames"] if case["type"] != FrameType.DATA])
def test_what_is_said_in_a_vector_is_understood_and_said_the_same_way(case):
    payload = bytes.fromhex(case["payload"])
    reader = {
        FrameType.STREAM_INFO: StreamInfo, FrameType.CONTROL: Control, FrameType.EVENT: Event
    }[FrameType(case["type"])]  # fmt: skip
    understood = reader.unpack(payload)
    if understood is None:  # an event of the future
        assert reader is Event
    else:
        assert understood.pack() == payload


@cases(FRAMES["refused"])
def test_a_refused_vector_is_refused_and_the_next_frame_is_not(case):
    good = frame_of(FRAMES["frames"][0])
    if "packed" in case:
        with pytest.raises(ValueError, match=r"CRC-32|bytes, 18|unknown type"):
            unpack(bytes.fromhex(case["packed"]))
    decoder = Decoder()
    assert decoder.feed(bytes.fromhex(case["serial"]) + encode(good)) == [good]
    assert decoder.frames_corrupt == 1


@cases(CODEC["vectors"])
def test_samples_have_the_payload_of_their_vector(case):
    samples = np.array(case["samples"], np.int16)  # T C
    payload, encoding = bytes.fromhex(case["payload"]), Encoding(case["encoding"])
    if not case.get("decode_only"):
        assert encode_samples(samples, encoding) == payload
    decoded = decode_samples(payload, encoding, len(samples), case["n_ch"])
    assert decoded.dtype == np.int16
    assert decoded.tolist() == case.get("decoded", case["samples"])


@cases(CODEC["refused"])
def test_a_payload_that_is_none_is_refused(case):
    payload, n_ch, n_samp = bytes.fromhex(case["payload"]), case["n_ch"], case["n_samp"]
    frame = Frame(FrameType.DATA, case["encoding"], n_ch=n_ch, n_samp=n_samp, payload=payload)
    with pytest.raises(HandshakeError, match="cannot be read"):
        decode_data(frame)
