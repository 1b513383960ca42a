"""The C wrist when the line is full, samples are missed, the host errs, the radio is slow."""

import ctypes
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.firmware_bridge import frames
from embridge.firmware_bridge.codec import Encoding
from embridge.firmware_bridge.frames import Frame, FrameType
from embridge.firmware_bridge.protocol import (
    Control,
    ControlOp,
    Event,
    EventCode,
    LinkParameters,
    Pong,
    Status,
)
from embridge.firmware_bridge.stream_info import StreamInfo

STEP_US: Final = 15_625  # 32 samples
Wrist = Callable[..., Any]


def _noise(n_samp: int, n_ch: int = 4) -> NDArray[np.int16]:
    return np.random.default_rng(5).normal(0, 300, (n_samp, n_ch)).astype(np.int16)


def _data(got: list[Frame]) -> list[Frame]:
    return [frame for frame in got if frame.type is FrameType.DATA]


def _status(frame: Frame) -> Status:
    event = Event.unpack(frame.payload)
    assert event is not None
    assert isinstance(event.report, Status)
    return event.report


def test_a_full_ring_drops_whole_frames_and_the_gap_is_exact(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(2048))
    assert wrist.start(16, ring=8244 + 512)
    wrist.tell(ControlOp.START)
    wrist.room = 100
    got: list[Frame] = []
    for step in range(50):
        wrist.room = wrist.room if step < 40 else 10**9
        got += _data(wrist.step(STEP_US))
    gaps = [late.seq - early.seq - 1 for early, late in pairwise(got)]
    assert [gap > 0 for gap in gaps].count(True) == 1
    after = got[gaps.index(max(gaps)) + 1]
    assert after.overrun
    assert [frame.overrun for frame in got].count(True) == 1
    for frame in got:
        begin = frame.sample_index
        assert begin == 16 * frame.seq
        assert np.array_equal(frames.decode_data(frame).samples, wrist.samples[begin:][:16])
    status = _status(wrist.tell(ControlOp.STOP)[-1])
    assert status.overruns == 1
    assert status.frames_dropped == max(gaps)
    assert status.frames_sent == len(got)


def test_status_still_fits_when_data_has_filled_the_ring(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(4096))
    assert wrist.start(16, ring=8244 + 512)
    wrist.tell(ControlOp.START)
    wrist.room = 0
    for _ in range(70):
        wrist.step(STEP_US)
    wrist.room = 10**9
    assert FrameType.STREAM_INFO in [frame.type for frame in wrist.step()]


@given(missed=st.dictionaries(st.integers(0, 60), st.integers(1, 700), max_size=4))
@settings(max_examples=30, deadline=None)
def test_samples_that_were_missed_are_counted_in_every_number(
    c_wrist: Wrist, missed: dict[int, int]
) -> None:
    wrist = c_wrist(_noise(64))
    wrist.missed = missed
    assert wrist.start(16)
    wrist.tell(ControlOp.START)
    got = []
    for _ in range(150):
        got += wrist.step(STEP_US)
    sent = _data(got)
    index = np.arange(64) + np.cumsum([missed.get(i, 0) for i in range(64)])
    heard = np.concatenate([f.sample_index + np.arange(f.n_samp) for f in sent])
    assert np.array_equal(heard, index)
    samples = np.concatenate([frames.decode_data(frame).samples for frame in sent])
    assert np.array_equal(samples, wrist.samples)
    status = _status(got[-1])
    assert status.samples_missed == sum(missed.values())
    assert status.frames_dropped == sum(-(-count // 16) for count in missed.values())
    assert sent[-1].seq + 1 == status.frames_sent + status.frames_dropped


def test_what_the_host_gets_wrong_is_counted_and_not_answered(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(10))
    assert wrist.start(5)
    control = frames.encode(Frame(FrameType.CONTROL, payload=Control(ControlOp.HELLO).pack()))
    for line in (
        control[:5] + b"\x77" + control[6:],  # damaged
        bytes([3]) * 500 + b"\0",  # longer than any command
        frames.encode(Frame(FrameType.DATA)),
        frames.encode(Frame(FrameType.CONTROL)),
        frames.encode(Frame(FrameType.CONTROL, payload=b"\x01\x01")),  # length beyond the end
        frames.encode(Frame(FrameType.CONTROL, payload=b"\x01\x01x")),  # HELLO has no value
        frames.encode(Frame(FrameType.CONTROL, payload=b"\x04\x03abc")),  # PING has 4 bytes
        frames.encode(Frame(FrameType.CONTROL, payload=b"\x02\x01x")),  # START has 0 or 2
        frames.encode(Frame(FrameType.CONTROL, payload=b"\x7f\x00")),  # unknown
    ):
        wrist.noise(line)
    assert wrist.sent == b""
    assert _status(wrist.tell(ControlOp.STATUS)[0]).frames_refused == 9


def test_a_start_that_cannot_be_changes_nothing(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(10, n_ch=64))  # 64 samples of 64 channels fill a frame
    assert wrist.start(5)
    for value in (b"\x03\x05", b"\xff\x05", b"\x01\x41"):
        (answer,) = wrist.tell(ControlOp.START, value)
        info = StreamInfo.unpack(answer.payload)
        assert answer.streaming
        assert (info.encoding, info.samples_per_frame) == (Encoding.INT16, 5)
    (answer,) = wrist.tell(ControlOp.START, b"\x01\x40")
    info = StreamInfo.unpack(answer.payload)
    assert (info.encoding, info.samples_per_frame) == (Encoding.INT8, 64)


def test_hello_on_a_radio_link_is_answered_with_its_parameters_too(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(600, n_ch=16), True)
    assert wrist.start(20)
    wrist.c.set_link(7500, 247, 251, 2)
    wrist.step()
    link = frames.unpack(wrist.sent)
    assert Event.unpack(link.payload) == Event(EventCode.LINK, LinkParameters(7500, 247, 251, 2))
    begin = len(wrist.sent)
    wrist.tell(ControlOp.HELLO)
    declared, again = wrist.sent[-114:], wrist.sent[begin:-114]
    assert frames.unpack(declared).type is FrameType.STREAM_INFO
    assert frames.unpack(again).payload == link.payload


def test_frames_shrink_to_what_the_radio_link_carries(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(600, n_ch=16), True)
    assert wrist.start(20)
    wrist.c.set_link(7500, 247, 251, 2)
    wrist.tell(ControlOp.START)
    begin = len(wrist.sent)
    wrist.step(STEP_US)
    sent = [frames.unpack(wrist.sent[at : at + 178]) for at in range(begin, len(wrist.sent), 178)]
    assert [frame.n_samp for frame in sent] == [5, 5, 5]  # 20 halved to 10, 338 bytes, to 5
    assert [frame.sample_index for frame in sent] == [0, 5, 10]


def test_a_host_that_hung_up_loses_what_waited(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(2048), True)
    assert wrist.start(16)
    wrist.tell(ControlOp.START)
    wrist.room = 0
    for _ in range(8):
        wrist.step(STEP_US)
    wrist.c.hang_up()
    wrist.room = 10**9
    begin = len(wrist.sent)
    wrist.step(STEP_US)
    assert len(wrist.sent) == begin
    wrist.tell(ControlOp.STATUS)
    assert _status(frames.unpack(wrist.sent[begin:])).frames_dropped == 18


def test_ping_brings_back_its_nonce_and_the_watchdog_is_fed(c_wrist: Wrist) -> None:
    wrist = c_wrist(_noise(10))
    assert wrist.start(5)
    fed = ctypes.c_uint.in_dll(wrist.c, "port_fed")
    before = fed.value
    wrist.now_us = 2**33 + 7
    (answer,) = wrist.tell(ControlOp.PING, b"\x01\x02\x03\x04")
    assert Event.unpack(answer.payload) == Event(EventCode.PONG, Pong(2**33 + 7, 0x04030201))
    assert answer.time_us == 7
    assert fed.value > before


@pytest.mark.parametrize(
    ("per_frame", "frame_size", "ring"), [(0, 8244, 65536), (5, 100, 65536), (5, 8244, 8244)]
)
def test_too_little_memory_is_refused(
    c_wrist: Wrist, per_frame: int, frame_size: int, ring: int
) -> None:
    wrist = c_wrist(_noise(10))
    assert not wrist.start(per_frame, frame_size=frame_size, ring=ring)
