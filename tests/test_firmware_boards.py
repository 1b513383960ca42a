"""The wrist's firmware on the emulated boards, over their serial line."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import serial
from numpy.typing import NDArray

from embridge.firmware_bridge.boards import BOARDS, COMPILER, build_firmware, builtin_table
from embridge.firmware_bridge.codec import Encoding, encode_samples
from embridge.firmware_bridge.frames import Decoder, Frame, FrameType, encode
from embridge.firmware_bridge.protocol import (
    Control,
    ControlOp,
    Event,
    EventCode,
    Pong,
    ResetCause,
    Status,
)
from embridge.firmware_bridge.qemu_board import EMULATOR, QemuBoard
from embridge.firmware_bridge.recording_blob import write_blob
from embridge.firmware_bridge.stream_info import StreamInfo

DEADLINE_S: Final = 30.0  # far beyond what any answer takes, on a busy machine too
HANG: Final = 0x7F  # a command of firmware built with EMB_TEST_HANG only

missing = [tool for tool in (COMPILER, EMULATOR, "setpriv") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(
    bool(missing),
    reason=f"no {', '.join(missing)}: apt install gcc-arm-none-eabi libnewlib-arm-none-eabi "
    "qemu-system-arm",
)
every_board = pytest.mark.parametrize("name", BOARDS)


class Host:
    """The other end of a board's serial line."""

    def __init__(self, port: Path) -> None:
        self.line: Any = serial.Serial(str(port), timeout=0.005)
        self.decoder = Decoder()

    def tell(self, op: int, value: bytes = b"") -> None:
        payload = bytes([op, len(value)]) + value
        self.line.write(encode(Frame(FrameType.CONTROL, payload=payload)))

    def until(self, wanted: Callable[[Frame], bool], count: int = 1) -> list[Frame]:
        """All frames up to the `count`-th that is wanted."""
        got: list[Frame] = []
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            for frame in self.decoder.feed(self.line.read(4096)):
                got.append(frame)
                count -= wanted(frame)
            if count <= 0:
                return got
        pytest.fail(f"not within {DEADLINE_S} s; {len(got)} other frames")

    def stop(self) -> list[Frame]:
        """What was still on its way, and two STATUS: the second comes after all DATA."""
        self.tell(ControlOp.STOP)
        got = self.until(lambda frame: _is_status(frame) and not frame.streaming)
        self.tell(ControlOp.STATUS)
        return got + self.until(_is_status)

    def ask(self, op: int, value: bytes = b"") -> list[Frame]:
        """Ask until it is answered by STREAM_INFO; what came up to there."""
        asked: list[Frame] = []
        for _ in range(20):
            self.tell(op, value)
            again_s = time.monotonic() + 0.5
            while time.monotonic() < again_s:
                asked += self.decoder.feed(self.line.read(4096))
                if any(frame.type is FrameType.STREAM_INFO for frame in asked):
                    return asked
        pytest.fail("no STREAM_INFO")


def _is_data(frame: Frame) -> bool:
    return frame.type is FrameType.DATA


def _is_event(code: EventCode) -> Callable[[Frame], bool]:
    return lambda frame: frame.type is FrameType.EVENT and frame.payload[0] == code


_is_status = _is_event(EventCode.STATUS)


def _status(got: list[Frame], which: int = -1) -> Status:
    event = Event.unpack([*filter(_is_status, got)][which].payload)
    assert event is not None
    assert isinstance(event.report, Status)
    return event.report


def _info(got: list[Frame]) -> StreamInfo:
    return StreamInfo.unpack(next(f.payload for f in got if f.type is FrameType.STREAM_INFO))


def _declared(rate_hz: float = 2000.0, boot_id: int = 77, per_frame: int = 20) -> StreamInfo:
    return StreamInfo(16, rate_hz, per_frame, "uV", 0.25, boot_id, 12, device="a recording")


def _noise(n_samp: int) -> NDArray[np.int16]:
    return np.random.default_rng(0).normal(0, 300, (n_samp, 16)).astype(np.int16)


def _assert_exact(got: list[Frame], samples: NDArray[np.int16]) -> None:
    """Each frame holds its piece of the samples, to the byte."""
    for frame in filter(_is_data, got):
        rows = range(frame.sample_index, frame.sample_index + frame.n_samp)
        piece = samples.take(rows, axis=0, mode="wrap")
        assert frame.payload == encode_samples(piece, Encoding(frame.flags & 0x0F))


@contextmanager
def _on(name: str, blob: Path | None = None, elf: Path | None = None) -> Iterator[Host]:
    with QemuBoard(name, blob, elf) as board:
        host = Host(board.port)
        yield host
        host.line.close()


@every_board
def test_firmware_builds_without_a_warning_and_is_kept(name: str, tmp_path: Path) -> None:
    elf = build_firmware(name, tmp_path)
    stamp = elf.stat().st_mtime_ns
    assert build_firmware(name, tmp_path) == elf
    assert elf.stat().st_mtime_ns == stamp
    assert [*tmp_path.iterdir()] == [elf]


@every_board
def test_a_recording_arrives_whole_in_every_encoding(name: str, tmp_path: Path) -> None:
    samples = _noise(60 * 2000)
    write_blob(tmp_path / "a, b.blob", samples, _declared(), loop=False)
    with _on(name, tmp_path / "a, b.blob") as host:
        info = _info(host.ask(ControlOp.HELLO))
        assert info.boot_id == 77
        assert not _declared().differences(info)
        got: list[Frame] = []
        for encoding in Encoding:
            got += host.ask(ControlOp.START, bytes([encoding, 0]))
            got += host.until(_is_data, 50)
        got += host.until(_is_status)  # it comes once a second
        host.tell(ControlOp.PING, b"\x01\x02\x03\x04")
        got += host.until(_is_event(EventCode.PONG))
        got += host.stop()
    data = [*filter(_is_data, got)]
    assert host.decoder.frames_corrupt == 0
    assert [frame.seq for frame in data] == [*range(len(data))]
    assert {frame.flags & 0x0F for frame in data} == {*Encoding}
    assert {late.time_us - early.time_us for early, late in pairwise(data)} == {10_000}
    _assert_exact(data, samples)
    (pong,) = map(Event.unpack, (f.payload for f in filter(_is_event(EventCode.PONG), got)))
    assert pong is not None
    assert isinstance(pong.report, Pong)
    assert pong.report.nonce == 0x04030201
    status = _status(got)
    assert status.frames_sent == len(data)
    assert _status(got, -2).frames_dropped == 0  # after STOP, every frame is dropped
    assert status.reset_cause is ResetCause.POWER_ON


@every_board
def test_the_watchdog_resets_a_board_that_hangs(name: str, tmp_path: Path) -> None:
    elf = build_firmware(name, tmp_path, ["-DEMB_TEST_HANG"])
    with _on(name, elf=elf) as host:
        before = _info(host.ask(ControlOp.START)).boot_id
        host.until(_is_data, 5)
        host.tell(HANG)
        booted = host.ask(ControlOp.HELLO)
        while _info(booted).boot_id == before:
            booted = host.ask(ControlOp.HELLO)
        assert not booted[-1].streaming
        host.tell(ControlOp.START)
        assert next(filter(_is_data, host.until(_is_data))).seq == 0
        host.tell(ControlOp.STATUS)
        assert _status(host.until(_is_status)).reset_cause is ResetCause.WATCHDOG


def test_a_recording_that_ends_says_so_until_it_is_stopped(tmp_path: Path) -> None:
    samples = _noise(1010)
    write_blob(tmp_path / "short", samples, _declared(), loop=False)
    with _on("mps2-an386", tmp_path / "short") as host:
        got = host.ask(ControlOp.START)
        got += host.until(_is_event(EventCode.END_OF_STREAM), 2)
        got += host.stop()
    data = [*filter(_is_data, got)]
    assert [frame.n_samp for frame in data] == [20] * 50 + [10]
    _assert_exact(data, samples)
    assert _status(got).frames_sent == 51


def test_a_looping_recording_begins_again(tmp_path: Path) -> None:
    samples = _noise(130)
    write_blob(tmp_path / "loop", samples, _declared(), loop=True)
    with _on("mps2-an386", tmp_path / "loop") as host:
        _assert_exact(host.ask(ControlOp.START) + host.until(_is_data, 20), samples)


def test_damaged_and_unknown_commands_are_counted() -> None:
    with _on("mps2-an386") as host:
        host.ask(ControlOp.HELLO)
        whole = encode(Frame(FrameType.CONTROL, payload=Control(ControlOp.START).pack()))
        host.line.write(whole[:4] + b"\x55" + whole[5:])
        host.line.write(b"\x07" * 300 + b"\0")
        host.tell(HANG)  # unknown to this firmware
        host.tell(ControlOp.PING, b"four?")
        host.tell(ControlOp.STATUS)
        answer = host.until(lambda frame: True)
        assert _is_status(answer[0])
        assert _status(answer).frames_refused == 4


def test_a_host_that_does_not_keep_up_sees_each_gap_exactly(tmp_path: Path) -> None:
    samples = _noise(4000)
    rate_hz = 40_000.0  # 1.3 MB/s: several times what the emulated line carries
    write_blob(tmp_path / "fast", samples, _declared(rate_hz, per_frame=100), loop=True)
    with _on("mps2-an386", tmp_path / "fast") as host:
        got = host.ask(ControlOp.START)
        got += host.until(lambda frame: _is_data(frame) and frame.overrun, 3)
        got += host.stop()
    data = [*filter(_is_data, got)]
    status = _status(got)
    assert host.decoder.frames_corrupt == 0
    for early, late in pairwise(data):
        lost = late.seq - early.seq - 1
        assert late.overrun == (lost > 0)
        # Whole frames where the transmit buffer was full, any number where samples were missed.
        ahead = late.sample_index - early.sample_index
        assert early.n_samp + lost <= ahead <= 100 * (lost + 1)
    _assert_exact(data, samples)
    assert status.frames_sent == len(data)
    assert status.overruns + status.samples_missed >= 3
    assert got[-1].seq == status.frames_sent + status.frames_dropped


@pytest.mark.parametrize("damage", [None, 5, 130, 200])
def test_without_a_sound_recording_the_built_in_table_plays(
    tmp_path: Path, damage: int | None
) -> None:
    blob = None
    if damage is not None:
        blob = tmp_path / "damaged"
        write_blob(blob, _noise(100), _declared(), loop=True)
        content = bytearray(blob.read_bytes())
        content[damage] ^= 1
        blob.write_bytes(content)
    with _on("mps2-an386", blob) as host:
        assert _info(host.ask(ControlOp.HELLO)).device == "built-in table"
        _assert_exact(host.ask(ControlOp.START) + host.until(_is_data, 30), builtin_table())


def test_a_port_that_is_closed_and_opened_again_goes_on(tmp_path: Path) -> None:
    samples = _noise(8000)
    write_blob(tmp_path / "blob", samples, _declared(), loop=True)
    with QemuBoard("mps2-an386", tmp_path / "blob") as board:
        boot_ids = []
        for _ in range(2):
            host = Host(board.port)
            boot_ids.append(_info(host.ask(ControlOp.START)).boot_id)
            _assert_exact(host.until(_is_data, 10), samples)
            host.line.close()
        assert boot_ids == [77, 77]


def test_two_boards_without_a_recording_draw_different_boot_ids() -> None:
    ids = []
    for _ in range(2):
        with _on("mps2-an386") as host:
            ids.append(_info(host.ask(ControlOp.HELLO)).boot_id)
    assert ids[0] != ids[1]
