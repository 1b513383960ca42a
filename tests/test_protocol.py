"""What wrist and host declare to each other, to the byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.firmware_bridge import (
    Control,
    ControlOp,
    Encoding,
    Event,
    EventCode,
    HandshakeError,
    LinkParameters,
    Pong,
    ResetCause,
    StartRequest,
    Status,
    StreamInfo,
    default_samples_per_frame,
)

INFO = StreamInfo(
    n_ch=16,
    rate_hz=2000.0,
    samples_per_frame=20,
    unit="uV",
    scale=0.5,
    boot_id=0x01020304,
    bits=12,
    envelope=True,
    firmware="1.2.3",
    device="bänd",
    model_sha256=bytes(range(32)),
    encodings=(Encoding.INT16, Encoding.RICE),
    encoding=Encoding.RICE,
)
GOLDEN = bytes.fromhex(
    "02 10 0c 14 00 00 fa 44"  # version, channels, bits, samples per frame, 2000.0f
    "00 00 00 00 00 00 e0 3f"  # 0.5
    "04 03 02 01 01 05 02 00"  # boot id, envelope, encodings, encoding
    "75 56 00 00 00 00 00 00"  # uV
    "31 2e 32 2e 33 00 00 00 00 00 00 00 00 00 00 00"
    "62 c3 a4 6e 64 00 00 00 00 00 00 00 00 00 00 00"
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"
    "10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f"
)


def text(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=size // 4)


def test_golden_bytes_of_a_stream_info():
    assert len(GOLDEN) == 96
    assert INFO.pack() == GOLDEN
    assert StreamInfo.unpack(GOLDEN) == INFO


@given(
    st.builds(
        StreamInfo,
        n_ch=st.integers(1, 255),
        rate_hz=st.floats(0.125, 1e5, width=32),
        samples_per_frame=st.integers(1, 16),
        unit=text(8),
        scale=st.floats(1e-12, 1e12),
        boot_id=st.integers(0, 2**32 - 1),
        bits=st.integers(1, 16),
        envelope=st.booleans(),
        firmware=text(16),
        device=text(16),
        model_sha256=st.binary(min_size=32, max_size=32),
    )
)
def test_any_stream_info_survives_the_wire(info):
    assert StreamInfo.unpack(info.pack()) == info


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "version none, this host 2"),
        (b"\x01" + GOLDEN[1:], "version 1, this host 2"),
        (GOLDEN[:-1], "in 95 bytes, expected 96"),
        (GOLDEN[:1] + b"\0" + GOLDEN[2:], "n_ch is 0, expected 1..255"),
        (GOLDEN[:4] + bytes(4) + GOLDEN[8:], "rate_hz is 0.0"),
        (GOLDEN[:22] + b"\x01" + GOLDEN[23:], "encoding INT8 of .'INT16', 'RICE'"),
        (GOLDEN[:22] + b"\x07" + GOLDEN[23:], "7 is not a valid Encoding"),
        (GOLDEN[:24] + b"\xff" + GOLDEN[25:], "invalid start byte"),
    ],
)
def test_a_declaration_that_cannot_be_used_says_why(payload, complaint):
    with pytest.raises(HandshakeError, match=complaint):
        StreamInfo.unpack(payload)


@pytest.mark.parametrize(
    "change", [{"unit": "microvolts"}, {"n_ch": 255}, {"scale": float("nan")}, {"boot_id": -1}]
)
def test_a_stream_that_cannot_be_declared_is_refused(change):
    fields = {name: getattr(INFO, name) for name in StreamInfo.__slots__}
    with pytest.raises(ValueError, match=next(iter(change)) + "|do not fit"):
        StreamInfo(**{**fields, "samples_per_frame": 255, **change})


@pytest.mark.parametrize("op", ControlOp)
def test_a_control_survives_the_wire(op):
    assert Control.unpack(Control(op, b"ab").pack()) == Control(op, b"ab")
    assert Control(op).pack() == bytes([op, 0])


STATUS = Status(258, 3, 0x0102030405, 1, 2, 4, ResetCause.WATCHDOG, 77)


@pytest.mark.parametrize(
    ("event", "golden"),
    [
        (
            Event(EventCode.STATUS, STATUS),
            "02 20 05 04 03 02 01 00 00 00 02 01 00 00 03 00 00 00 01 00 00 00 02 00 00 00"
            "04 00 00 00 02 4d 00 00",
        ),
        (Event(EventCode.PONG, Pong(1, 0xDEADBEEF)), "03 0c 01 00 00 00 00 00 00 00 ef be ad de"),
        (
            Event(EventCode.LINK, LinkParameters(15_000, 247, 251, 2)),
            "04 0c 98 3a 00 00 f7 00 fb 00 02 00 00 00",
        ),
    ],
)
def test_golden_bytes_of_events(event, golden):
    assert event.pack() == bytes.fromhex(golden)
    assert Event.unpack(event.pack()) == event


def test_events_of_the_future_are_ignored():
    assert Event.unpack(b"\x63\x01x") is None


def test_a_start_request_says_how_to_send():
    request = StartRequest(Encoding.RICE, 12)
    assert request.pack() == b"\x02\x0c"
    assert StartRequest.unpack(request.pack()) == request
    assert StartRequest.unpack(b"") is None


def test_a_start_request_of_the_future_changes_nothing():
    assert StartRequest.unpack(b"\x09\x14") is None


@pytest.mark.parametrize("value", [b"\x00", b"\x00\x00\x00"])
def test_a_start_request_of_another_size_is_refused(value):
    with pytest.raises(ValueError, match=r"start request of . bytes"):
        StartRequest.unpack(value)


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x01\x08ab", b"\x01\x01ab"])
def test_a_malformed_control_or_event_is_refused(payload):
    with pytest.raises(ValueError, match="expected"):
        Control.unpack(payload)
    with pytest.raises(HandshakeError, match="expected"):
        Event.unpack(payload)


@pytest.mark.parametrize(
    ("rate_hz", "n_ch", "samples"),
    [(2000.0, 16, 20), (100.0, 10, 1), (50.0, 8, 1), (200.0, 8, 2), (1e5, 4, 255), (1e5, 64, 64)],
)
def test_frames_hold_about_ten_milliseconds(rate_hz, n_ch, samples):
    assert default_samples_per_frame(rate_hz, n_ch) == samples
