"""The C state machine of the wrist, on a port made here: same bytes as its twin in Python."""

import ctypes
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.firmware_bridge import boards, frames
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
from embridge.firmware_bridge.transmit_queue import TransmitQueue
from embridge.firmware_bridge.wrist_core import WristCore

STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion")
STEP_US: Final = 15_625  # a sixty-fourth of a second is exact in both clocks
RATE_HZ: Final = 2048
PORT: Final = """
#include "emb_port.h"
#include "emb_wrist.h"
#include <string.h>
uint64_t (*port_now)(void);
int (*port_sample)(int16_t *, emb_sample_stamp *);
size_t (*port_write)(const uint8_t *, size_t);
size_t (*port_read)(uint8_t *, size_t);
unsigned port_fed;
uint64_t emb_port_now_us(void) { return port_now(); }
emb_sample_result emb_port_sample(int16_t *x, emb_sample_stamp *stamp) {
    return (emb_sample_result)port_sample(x, stamp);
}
size_t emb_port_write(const uint8_t *data, size_t n) { return port_write(data, n); }
size_t emb_port_read(uint8_t *data, size_t n) { return port_read(data, n); }
void emb_port_feed_watchdog(void) { port_fed++; }
static emb_wrist wrist;
static int16_t samples[4096];
static uint32_t times[255];
static uint8_t frame[8244], transmit[65536], receive[EMB_WRIST_RECEIVE_BYTES];
bool start(uint8_t n_ch, uint8_t per_frame, bool datagram, size_t frame_size, size_t ring) {
    emb_wrist_config config;
    memset(&config, 0, sizeof config);
    config.info.n_ch = n_ch;
    config.info.bits = 16;
    config.info.samples_per_frame = per_frame;
    config.info.encodings = 7;
    config.info.boot_id = 77;
    config.info.rate_hz = 2048;
    config.info.scale = 0.25;
    memcpy(config.info.unit, "uV", 2);
    memcpy(config.info.firmware, "0123456789abcdef", 16);
    config.reset_cause = EMB_RESET_POWER;
    config.battery_percent = 100;
    config.datagram = datagram;
    config.samples_capacity = (uint8_t)(4096 / n_ch < 255 ? 4096 / n_ch : 255);
    config.samples = samples;
    config.sample_times = times;
    config.frame = frame;
    config.frame_size = frame_size;
    config.transmit = transmit;
    config.transmit_size = ring;
    config.receive = receive;
    return emb_wrist_init(&wrist, &config);
}
void step(void) { while (emb_wrist_poll(&wrist)) {} }
void hang_up(void) { emb_wrist_hang_up(&wrist); }
void link(uint32_t interval_us, uint16_t mtu, uint16_t octets, uint8_t phy) {
    const emb_link parameters = {interval_us, mtu, octets, phy};
    emb_wrist_set_link(&wrist, &parameters);
}
"""


class Stamp(ctypes.Structure):
    _fields_ = (("time_us", ctypes.c_uint64), ("missed", ctypes.c_uint32))


class CWrist:
    """The C wrist, playing samples (T, C) of RATE_HZ to a line of limited room."""

    def __init__(self, library: Any, samples: NDArray[np.int16]) -> None:
        self.c = library
        self.samples = samples
        self.now_us = 0
        self.sent = b""
        self.room = 10**9  # bytes that the line still takes
        self.datagram = False
        self.missed: dict[int, int] = {}  # sample -> how many are missing before it
        self._began_us: int | None = None
        self._next = self._lost = 0
        self._inbox: list[bytes] = []
        self._decoder = frames.Decoder()
        self._keep = [
            self._hook("port_now", lambda: self.now_us, ctypes.c_uint64),
            self._hook("port_sample", self._sample, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            self._hook("port_write", self._write, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t),
            self._hook("port_read", self._read, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t),
        ]  # fmt: skip

    def start(self, per_frame: int, *, frame_size: int = 8244, ring: int = 65536) -> bool:
        sizes = map(ctypes.c_size_t, (frame_size, ring))
        return bool(self.c.start(self.samples.shape[1], per_frame, self.datagram, *sizes) & 1)

    def step(self, us: int = 0) -> list[Frame]:
        """Time passes, the wrist does what is due; what it sent meanwhile."""
        self.now_us += us
        before = len(self.sent)
        self.c.step()
        if self.datagram:
            return []
        got = self._decoder.feed(self.sent[before:])
        assert not self._decoder.frames_corrupt
        return got

    def tell(self, op: int, value: bytes = b"") -> list[Frame]:
        return self.hear(Frame(FrameType.CONTROL, payload=bytes([op, len(value)]) + value))

    def hear(self, frame: Frame) -> list[Frame]:
        self._inbox.append(frames.pack(frame) if self.datagram else frames.encode(frame))
        return self.step()

    def noise(self, line: bytes) -> None:
        self._inbox.append(line)
        self.step()

    def _hook(self, name: str, function: Any, *types: Any) -> Any:
        pointer = ctypes.CFUNCTYPE(*types)(function)
        ctypes.c_void_p.in_dll(self.c, name).value = ctypes.cast(pointer, ctypes.c_void_p).value
        return pointer

    def _sample(self, row: int, stamp: int) -> int:
        self._began_us = self.now_us if self._began_us is None else self._began_us
        if self._next == len(self.samples):
            return 2
        index = self._next + self._lost + self.missed.get(self._next, 0)
        if (self.now_us - self._began_us) * RATE_HZ < (index + 1) * 1_000_000:
            return 0
        self._lost += (missed := self.missed.get(self._next, 0))
        ctypes.memmove(row, self.samples[self._next].tobytes(), 2 * self.samples.shape[1])
        time_us = round(self._began_us + 1e6 * index / RATE_HZ)
        Stamp.from_address(stamp).time_us, Stamp.from_address(stamp).missed = time_us, missed
        self._next += 1
        return 1

    def _write(self, data: int, n: int) -> int:
        taken = min(n, self.room) if not self.datagram or self.room >= n else 0
        self.sent += ctypes.string_at(data, taken)
        self.room -= taken
        return taken

    def _read(self, data: int, n: int) -> int:
        if not self._inbox:
            return 0
        first, rest = self._inbox[0][:n], self._inbox[0][n:]
        self._inbox[:1] = [rest] if rest and not self.datagram else []
        ctypes.memmove(data, first, len(first))
        return len(first)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("cc") is None:
        pytest.skip("no `cc` on this machine: the C core cannot be compiled for it")
    folder: Path = tmp_path_factory.mktemp("wrist")
    (folder / "port.c").write_text(PORT)
    sources = [folder / "port.c", *sorted(boards.FIRMWARE.glob("*.c"))]
    command = ["cc", *STRICT, f"-I{boards.FIRMWARE}", "-shared", "-fPIC", *map(str, sources)]
    subprocess.run([*command, "-o", str(folder / "wrist.so")], check=True)
    return ctypes.CDLL(str(folder / "wrist.so"))


def _noise(n_samp: int, n_ch: int = 4) -> NDArray[np.int16]:
    return np.random.default_rng(5).normal(0, 300, (n_samp, n_ch)).astype(np.int16)


def _data(got: list[Frame]) -> list[Frame]:
    return [frame for frame in got if frame.type is FrameType.DATA]


def _status(frame: Frame) -> Status:
    event = Event.unpack(frame.payload)
    assert event is not None
    assert isinstance(event.report, Status)
    return event.report


class Twin:
    """Python's wrist, stepped as CWrist is."""

    def __init__(
        self, samples: NDArray[np.int16], per_frame: int, datagram: bool, limit: int
    ) -> None:
        n_ch = samples.shape[1]
        info = StreamInfo(n_ch, RATE_HZ, per_frame, "uV", 0.25, 77, firmware="0123456789abcdef")
        self.queue = TransmitQueue(10**9)
        framing = frames.pack if datagram else frames.encode
        self.core = WristCore(samples, info, self.queue, framing, frame_bytes=limit)
        self.sent = b""

    def step(self, now_us: int) -> None:
        self.core.step(now_us / 1e6)
        while (head := self.queue.head()) is not None:
            self.sent += bytes(head)
            self.queue.sent(len(head))
            self.core.step(now_us / 1e6)  # as the end may follow at once


starts = st.tuples(st.integers(0, 3), st.integers(0, 40)).map(bytes)
commands = st.one_of(
    st.sampled_from([(ControlOp.HELLO, b""), (ControlOp.STOP, b""), (ControlOp.STATUS, b"")]),
    st.just((ControlOp.PING, b"1234")),
    st.just((99, b"new")),
    st.tuples(st.just(ControlOp.START), st.just(b"") | starts),
)
acts = st.lists(st.integers(1, 40) | commands, max_size=25)


@given(
    acts=acts,
    per_frame=st.integers(1, 40),
    datagram=st.booleans(),
    limit=st.sampled_from([8210, 130]),
)
@settings(max_examples=40, deadline=None)
def test_c_and_python_send_the_same_bytes(
    library: Any, acts: list[Any], per_frame: int, datagram: bool, limit: int
) -> None:
    samples = _noise(1500)
    wrist, twin = CWrist(library, samples), Twin(samples, per_frame, datagram, limit)
    wrist.datagram = datagram
    assert wrist.start(per_frame, frame_size=limit if datagram else frames.wire_bytes(limit - 18))
    for act in [(ControlOp.START, b""), *acts]:
        for _ in range(act if isinstance(act, int) else 0):
            wrist.step(STEP_US)
            twin.step(wrist.now_us)
        if not isinstance(act, int):
            wrist.tell(*act)
            frame = Frame(FrameType.CONTROL, payload=bytes([act[0], len(act[1])]) + act[1])
            twin.core.receive(frame, wrist.now_us / 1e6)
            twin.step(wrist.now_us)
        assert wrist.sent == twin.sent


def test_a_full_ring_drops_whole_frames_and_the_gap_is_exact(library: Any) -> None:
    wrist = CWrist(library, _noise(2048))
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


def test_status_still_fits_when_data_has_filled_the_ring(library: Any) -> None:
    wrist = CWrist(library, _noise(4096))
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
    library: Any, missed: dict[int, int]
) -> None:
    wrist = CWrist(library, _noise(64))
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


def test_what_the_host_gets_wrong_is_counted_and_not_answered(library: Any) -> None:
    wrist = CWrist(library, _noise(10))
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


def test_a_start_that_cannot_be_changes_nothing(library: Any) -> None:
    wrist = CWrist(library, _noise(10, n_ch=64))  # 64 samples of 64 channels fill a frame
    assert wrist.start(5)
    for value in (b"\x03\x05", b"\xff\x05", b"\x01\x41"):
        (answer,) = wrist.tell(ControlOp.START, value)
        info = StreamInfo.unpack(answer.payload)
        assert answer.streaming
        assert (info.encoding, info.samples_per_frame) == (Encoding.INT16, 5)
    (answer,) = wrist.tell(ControlOp.START, b"\x01\x40")
    info = StreamInfo.unpack(answer.payload)
    assert (info.encoding, info.samples_per_frame) == (Encoding.INT8, 64)


def test_hello_on_a_radio_link_is_answered_with_its_parameters_too(library: Any) -> None:
    wrist = CWrist(library, _noise(600, n_ch=16))
    wrist.datagram = True
    assert wrist.start(20)
    wrist.c.link(7500, 247, 251, 2)
    wrist.step()
    link = frames.unpack(wrist.sent)
    assert Event.unpack(link.payload) == Event(EventCode.LINK, LinkParameters(7500, 247, 251, 2))
    begin = len(wrist.sent)
    wrist.tell(ControlOp.HELLO)
    declared, again = wrist.sent[begin : begin + 114], wrist.sent[begin + 114 :]
    assert frames.unpack(declared).type is FrameType.STREAM_INFO
    assert frames.unpack(again).payload == link.payload


def test_frames_shrink_to_what_the_radio_link_carries(library: Any) -> None:
    wrist = CWrist(library, _noise(600, n_ch=16))
    wrist.datagram = True
    assert wrist.start(20)
    wrist.c.link(7500, 247, 251, 2)
    wrist.tell(ControlOp.START)
    begin = len(wrist.sent)
    wrist.step(STEP_US)
    sent = [frames.unpack(wrist.sent[at : at + 178]) for at in range(begin, len(wrist.sent), 178)]
    assert [frame.n_samp for frame in sent] == [5, 5, 5]  # 20 halved to 10, 338 bytes, to 5
    assert [frame.sample_index for frame in sent] == [0, 5, 10]


def test_a_host_that_hung_up_loses_what_waited(library: Any) -> None:
    wrist = CWrist(library, _noise(2048))
    wrist.datagram = True
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


def test_ping_brings_back_its_nonce_and_the_watchdog_is_fed(library: Any) -> None:
    wrist = CWrist(library, _noise(10))
    assert wrist.start(5)
    fed = ctypes.c_uint.in_dll(library, "port_fed")
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
    library: Any, per_frame: int, frame_size: int, ring: int
) -> None:
    wrist = CWrist(library, _noise(10))
    assert not wrist.start(per_frame, frame_size=frame_size, ring=ring)
