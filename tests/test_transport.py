"""Which encoding a line gets: exact where it fits, compressed where it must, an error else."""

import pytest

from embridge.firmware_bridge import (
    Capacity,
    Encoding,
    HandshakeError,
    StreamInfo,
    choose_encoding,
)
from embridge.firmware_bridge.transport import bytes_per_s

INFO = StreamInfo(16, 2000.0, 20, "uV", 0.5, boot_id=7)


def chosen(info: StreamInfo = INFO, wanted: Encoding | None = None, **capacity: object):
    request = choose_encoding(info, Capacity(**capacity), wanted).request
    return request.encoding, request.samples_per_frame


def test_sixteen_channels_at_2_khz_need_66_kilobytes_a_second():
    # 14 + 640 + 4 bytes, 3 of COBS, 1 delimiter: 662 bytes, 100 times a second;
    # STREAM_INFO 116 and STATUS 54 bytes once a second.
    assert bytes_per_s(INFO, Encoding.INT16, 20) == 100 * 662 + 116 + 54


def test_a_line_of_unknown_speed_gets_exact_samples():
    assert chosen() == (Encoding.INT16, 20)


@pytest.mark.parametrize(
    ("bytes_per_s_", "encoding"),
    [(70_000, Encoding.INT16), (60_000, Encoding.RICE), (40_000, Encoding.INT8)],
)
def test_a_slower_line_gets_a_compressed_encoding(bytes_per_s_, encoding):
    assert chosen(bytes_per_s=bytes_per_s_)[0] is encoding


def test_a_notification_of_244_bytes_holds_seven_exact_samples():
    assert chosen(frame_bytes=244) == (Encoding.INT16, 7)
    assert chosen(wanted=Encoding.INT8, frame_bytes=244) == (Encoding.INT8, 12)
    encoding, samples = chosen(wanted=Encoding.RICE, frame_bytes=244)
    assert encoding is Encoding.RICE
    assert 7 < samples <= 12


def test_a_line_that_carries_nothing_of_it_is_refused_with_what_it_needs():
    with pytest.raises(HandshakeError, match=r"need 37.5 kB/s as INT8.*carries 9.0 kB/s: send few"):
        chosen(bytes_per_s=9_000.0)


def test_a_frame_too_small_for_one_sample_is_refused():
    with pytest.raises(HandshakeError, match=r"one sample of 16 channels does not fit .* 20 bytes"):
        chosen(frame_bytes=20)


def test_an_encoding_that_was_asked_for_and_does_not_fit_is_refused():
    with pytest.raises(HandshakeError, match="as INT16"):
        chosen(wanted=Encoding.INT16, bytes_per_s=50_000.0)
