"""A virtual wrist on a real pseudo-terminal, and a scripted one behind a socket."""

import io
import itertools
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.firmware_bridge import (
    FLAG_STREAMING,
    Block,
    Control,
    ControlOp,
    DataFrame,
    Decoder,
    EmbridgeError,
    Encoding,
    EndOfStream,
    Event,
    EventCode,
    Frame,
    FrameType,
    Gap,
    HandshakeError,
    Item,
    LinkError,
    LinkLost,
    Outage,
    PortNotFound,
    Reconnected,
    Restarted,
    SerialTransport,
    Status,
    StreamInfo,
    VirtualWrist,
    WristLink,
    data_frame,
    encode,
    parse_url,
    to_counts,
)

INFO = StreamInfo(16, 2000.0, 20, "uV", 0.5, boot_id=7, device="virtual")
SMALL = StreamInfo(2, 100.0, 1, "a.u.", 1.0, boot_id=7)
ROOMY = 1 << 20  # transmit buffer that hides a busy test machine

Session = Callable[["Peer"], None]


def recording(seconds: float, info: StreamInfo = INFO) -> NDArray[np.int16]:
    shape = (int(seconds * info.rate_hz), info.n_ch)
    return np.random.default_rng(0).integers(-32768, 32768, shape, np.int16)


def blocks(items: list[Item]) -> list[Block]:
    return [item for item in items if isinstance(item, Block)]


def others(items: list[Item]) -> list[Item]:
    """All but blocks; an end with its counts only, since its clock is the wrist's."""
    rest = [item for item in items if not isinstance(item, Block)]
    return [EndOfStream(counts(i.status)) if isinstance(i, EndOfStream) else i for i in rest]


def counts(status: Status) -> Status:
    return Status(status.frames_sent, status.frames_dropped)


def serial_link(url: str, **options: object) -> WristLink:
    return WristLink(SerialTransport(url, parse_url(url)), **options)


def assert_each_block_is_where_it_belongs(items: list[Item], played: NDArray[np.int16]) -> None:
    for block in blocks(items):
        at = block.first_sample
        assert np.array_equal(block.samples, played[at : at + len(block.samples)])


class Playing:
    """A VirtualWrist in a thread: the port it opened, and what it returns."""

    def __init__(self, pool: ThreadPoolExecutor, wrist_of: Callable[..., VirtualWrist]) -> None:
        ports: queue.Queue[Path] = queue.Queue()
        self.stop = threading.Event()
        self.result: Future[Status] = pool.submit(wrist_of(ports.put).run, self.stop)
        self.path = ports.get(timeout=10)
        self.url = f"serial://{self.path}"


@pytest.fixture
def play() -> Iterator[Callable[..., Playing]]:
    """play(samples, info, **options) -> a wrist that plays; stopped at the end of the test."""
    started: list[Playing] = []
    with ThreadPoolExecutor() as pool:

        def start(samples: NDArray[np.int16], info: StreamInfo, **options: object) -> Playing:
            started.append(
                Playing(pool, lambda put: VirtualWrist(samples, info, on_port=put, **options))
            )
            return started[-1]

        yield start
        for playing in started:
            playing.stop.set()


def raw_host(path: Path) -> io.FileIO:
    """The host's end of a pseudo-terminal without any of our code in between."""
    return io.FileIO(os.open(path, os.O_RDWR | os.O_NOCTTY), "r+")


def is_end_of_stream(frame: Frame) -> bool:
    return (
        frame.type is FrameType.EVENT
        and Event.unpack(frame.payload).code is EventCode.END_OF_STREAM
    )


class Peer:
    """One TCP connection of a scripted wrist."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self._heard: list[ControlOp] = []

    def wait_for(self, op: ControlOp) -> None:
        while op not in self._heard:
            data = self._connection.recv(4096)
            if not data:
                raise ConnectionError(f"the host left before {op.name}")
            frames = self._decoder.feed(data)
            self._heard += [Control.unpack(frame.payload).op for frame in frames]
        del self._heard[: self._heard.index(op) + 1]

    def wait_until_left(self) -> None:
        while self._connection.recv(4096):
            pass

    def send(self, *lines: bytes) -> None:
        self._connection.sendall(b"".join(lines))

    def begin(self, info: StreamInfo, seq: int = 0) -> None:
        """HELLO and START, answered; the stream is about to send frame `seq`."""
        self.wait_for(ControlOp.HELLO)
        self.send(declare(info))
        self.wait_for(ControlOp.START)
        self.send(declare(info, seq, FLAG_STREAMING))


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """serve(session, ...) -> url; the n-th connection is handled by the n-th session."""
    with ThreadPoolExecutor() as pool, socket.create_server(("127.0.0.1", 0)) as server:
        running: list[Future[None]] = []

        def handle(sessions: tuple[Session, ...]) -> None:
            for session in sessions:
                connection, _ = server.accept()
                with connection:
                    session(Peer(connection))

        def start(*sessions: Session) -> str:
            server.settimeout(10)
            running.append(pool.submit(handle, sessions))
            return f"socket://127.0.0.1:{server.getsockname()[1]}"

        yield start
        for future in running:
            future.result(timeout=10)


def declare(info: StreamInfo, seq: int = 0, flags: int = 0) -> bytes:
    index = seq * info.samples_per_frame
    return encode(Frame(FrameType.STREAM_INFO, flags, seq, index, payload=info.pack()))


def data(seq: int, info: StreamInfo = SMALL) -> bytes:
    samples = np.full((info.samples_per_frame, info.n_ch), seq, np.int16)
    return encode(data_frame(DataFrame(seq, seq * info.samples_per_frame, samples)))


def end(seq: int, info: StreamInfo = SMALL) -> bytes:
    payload = Event(EventCode.END_OF_STREAM, Status(seq, 0)).pack()
    index = seq * info.samples_per_frame
    return encode(Frame(FrameType.EVENT, FLAG_STREAMING, seq, index, payload=payload))


def test_every_sample_arrives_bit_for_bit(play):
    played = recording(5.0)[:-13]  # the last frame is a short one
    wrist = play(played, INFO, speed=10.0, queue_bytes=ROOMY)
    with serial_link(wrist.url) as link:
        assert link.info == INFO
        items = list(link.blocks())
        stats = link.stats
    assert np.array_equal(np.concatenate([block.samples for block in blocks(items)]), played)
    sent = Status(frames_sent=500, frames_dropped=0)
    assert others(items) == [EndOfStream(sent)]
    assert counts(wrist.result.result(timeout=10)) == counts(stats.declared) == sent
    assert (stats.frames_received, stats.frames_lost, stats.frames_corrupt) == (500, 0, 0)
    assert stats.bytes_received > played.nbytes


def test_an_outage_is_one_reconnect_and_one_gap_of_exactly_the_missing_samples(play, tmp_path):
    played = recording(12.0)
    link_path = tmp_path / "wrist"
    outage = Outage(at_s=2.0, for_s=3.0)
    wrist = play(played, INFO, speed=10.0, link=link_path, outages=[outage], queue_bytes=ROOMY)
    assert wrist.path == link_path
    with serial_link(wrist.url) as link:
        items = list(link.blocks())
        stats = link.stats
    reconnected, gap, _ = others(items)
    assert isinstance(reconnected, Reconnected)
    assert isinstance(gap, Gap)
    received = sum(len(block.samples) for block in blocks(items))
    assert received + gap.samples == len(played)
    assert gap.samples >= 3.0 * INFO.rate_hz
    assert (stats.reconnects, stats.gaps, stats.restarts) == (1, 1, 0)
    assert_each_block_is_where_it_belongs(items, played)
    counters = wrist.result.result(timeout=10)
    assert counters.frames_sent + counters.frames_dropped == 1200
    assert stats.frames_received + stats.frames_lost == 1200
    assert not link_path.is_symlink()


def test_a_full_transmit_buffer_drops_whole_frames_and_the_host_counts_them(play):
    played = recording(20.0)
    wrist = play(played, INFO, speed=2000.0, queue_bytes=4096)
    with serial_link(wrist.url) as link:
        items = list(link.blocks())
        stats = link.stats
    counters = wrist.result.result(timeout=10)
    assert counters.frames_dropped > 0
    assert stats.frames_lost == counters.frames_dropped
    assert stats.frames_received == counters.frames_sent
    assert stats.samples_received + stats.samples_lost == len(played)
    assert_each_block_is_where_it_belongs(items, played)


def test_the_frame_after_dropped_ones_says_so(play):
    wrist = play(recording(20.0), INFO, speed=2000.0, queue_bytes=4096)
    heard: list[Frame] = []
    with raw_host(wrist.path) as port:
        port.write(encode(Frame(FrameType.CONTROL, payload=Control(ControlOp.START).pack())))
        decoder = Decoder()
        while not any(map(is_end_of_stream, heard)):
            heard += decoder.feed(port.read(4096))
    frames = [frame for frame in heard if frame.type is FrameType.DATA]
    follows = [-1, *(frame.seq for frame in frames)]
    dropped_before = [frame.seq != last + 1 for frame, last in zip(frames, follows, strict=False)]
    assert any(dropped_before)
    assert [frame.overrun for frame in frames] == dropped_before


@pytest.mark.parametrize("host_hangs_up", [True, False])
def test_frames_that_were_queued_but_never_written_count_as_dropped(play, host_hangs_up):
    wrist = play(recording(10.0), INFO, speed=1e9, queue_bytes=ROOMY)
    with raw_host(wrist.path) as port:
        port.write(encode(Frame(FrameType.CONTROL, payload=Control(ControlOp.START).pack())))
        heard = Decoder()
        while not any(frame.type is FrameType.DATA for frame in heard.feed(port.read(64))):
            pass
        if not host_hangs_up:
            wrist.stop.set()
            wrist.result.result(timeout=10)
    counters = wrist.result.result(timeout=10)
    assert counters.frames_sent + counters.frames_dropped == 1000
    assert counters.frames_dropped > 800


def test_a_stream_longer_than_the_silence_limit_is_not_silent(play):
    wrist = play(recording(8.0), INFO, speed=10.0, queue_bytes=ROOMY)
    with serial_link(wrist.url, silence_s=0.5) as link:
        items = list(link.blocks())
    assert others(items) == [EndOfStream(Status(800, 0))]


def test_a_second_host_joins_the_running_stream_where_it_is(play):
    played = recording(2.0)
    wrist = play(played, INFO, speed=1.0, loop=True, queue_bytes=ROOMY)
    ends = []
    for _ in range(2):
        with serial_link(wrist.url) as link:
            items = [item for item, _ in zip(link.blocks(), range(20), strict=False)]
        assert link.stats.frames_lost == 0
        assert_each_block_is_where_it_belongs(items, played)
        ends.append((blocks(items)[0].first_sample, blocks(items)[-1].first_sample))
    assert ends[1][0] > ends[0][1]


def test_stop_ends_the_blocks_of_an_endless_stream(play):
    wrist = play(recording(0.5), INFO, speed=10.0, loop=True, queue_bytes=ROOMY)
    with serial_link(wrist.url) as link:
        received = 0
        for item in link.blocks():
            received += isinstance(item, Block)
            if received == 100:  # twice around the recording
                link.stop()
    assert received >= 100
    assert link.stats.frames_lost == 0


def test_blocks_are_stamped_with_the_clock_that_was_given(play):
    ticks = itertools.count()
    wrist = play(recording(0.5), INFO, speed=10.0, queue_bytes=ROOMY)
    with serial_link(wrist.url, clock=lambda: 1e6 + next(ticks) / 1024) as link:
        stamps = [block.arrived_s for block in blocks(list(link.blocks()))]
    assert stamps == sorted(stamps)
    assert {stamp * 1024 - 1e6 * 1024 for stamp in stamps} <= set(range(next(ticks)))


def test_a_wrist_that_comes_back_with_other_channels_is_refused(play, tmp_path):
    first = play(recording(1.0), INFO, loop=True, link=tmp_path / "wrist")
    eight = replace(INFO, n_ch=8, boot_id=8)
    with serial_link(first.url) as link:
        items = link.blocks()
        assert isinstance(next(items), Block)
        first.stop.set()
        first.result.result(timeout=10)
        play(recording(1.0, eight), eight, loop=True, link=tmp_path / "wrist")
        with pytest.raises(HandshakeError, match=r"another stream .n_ch 16, then 8"):
            list(items)


def test_a_wrist_that_comes_back_rebooted_begins_a_new_stream(play, tmp_path):
    first = play(recording(1.0), INFO, loop=True, link=tmp_path / "wrist")
    played = recording(1.0)[:200]
    with serial_link(first.url) as link:
        running = link.blocks()
        assert isinstance(next(running), Block)
        first.stop.set()
        first.result.result(timeout=10)
        play(played, replace(INFO, boot_id=8), link=tmp_path / "wrist", queue_bytes=ROOMY)
        items = list(running)
    at = items.index(Restarted(boot_id=8))
    assert others(items[at:]) == [Restarted(8), EndOfStream(Status(10, 0))]
    assert np.array_equal(np.concatenate([b.samples for b in blocks(items[at:])]), played)
    assert (link.stats.reconnects, link.stats.restarts) == (1, 1)


def test_a_wrist_that_never_comes_back_is_lost(play):
    wrist = play(recording(1.0), INFO, loop=True)
    with serial_link(wrist.url, reconnect_s=0.3) as link:
        items = link.blocks()
        assert isinstance(next(items), Block)
        wrist.stop.set()
        with pytest.raises(LinkLost, match=r"within 0\.3 s"):
            list(items)


def test_a_port_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    with pytest.raises(PortNotFound, match=f"no port {tmp_path}/none; ports found: "):
        serial_link(f"serial://{tmp_path}/none").open()


def test_a_socket_that_nobody_listens_on_is_not_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(PortNotFound, match=r"cannot open socket://.*refused"):
        serial_link(url).open()


def test_a_port_that_another_program_reads_is_refused(play):
    wrist = play(recording(1.0), INFO, loop=True)
    with serial_link(wrist.url), pytest.raises(PortNotFound, match="used by another program"):
        serial_link(wrist.url).open()


@pytest.mark.parametrize(
    "url",
    [
        "/dev/ttyACM0",
        "serial://",
        "serial:///dev/x?baud=fast",
        "serial:///dev/x?bauds=1",
        "usb://1",
    ],
)
def test_an_address_that_is_no_url_of_a_wrist_is_refused(url):
    with pytest.raises(PortNotFound, match="expected serial:///dev/ttyACM0"):
        serial_link(url)


def test_a_port_that_says_nothing_is_no_wrist():
    master, slave = os.openpty()
    try:
        with pytest.raises(HandshakeError, match=r"within 0\.2 s .no answer to HELLO"):
            serial_link(f"serial://{os.ttyname(slave)}", timeout_s=0.2).open()
    finally:
        os.close(master)
        os.close(slave)


def test_a_stream_that_does_not_fit_the_baud_rate_is_refused(play):
    wrist = play(recording(1.0), INFO)
    with pytest.raises(
        HandshakeError, match=r"need 37.5 kB/s as INT8, and 115200 baud.*higher \?baud="
    ):
        serial_link(f"{wrist.url}?baud=115200").open()


@pytest.mark.parametrize(("baud", "encoding"), [(921600, 0), (460800, 2), (380000, 1)])
def test_a_line_too_slow_for_int16_is_sent_a_compressed_encoding(play, baud, encoding):
    played = (recording(2.0) // 64).astype(np.int16)
    wrist = play(played, INFO, speed=4.0, queue_bytes=ROOMY)
    with serial_link(f"{wrist.url}?baud={baud}") as link:
        items = list(link.blocks())
    assert link.choice.request.encoding == link.info.encoding == encoding
    received = np.concatenate([block.samples for block in blocks(items)])
    if link.info.encoding is Encoding.INT8:
        assert np.abs(received - played).max() <= -(-512 // 127) / 2 + 0.5
    else:
        assert np.array_equal(received, played)
    assert link.stats.frames_lost == 0


def test_the_wrist_sends_as_it_is_asked_to(play):
    wrist = play(recording(1.0), INFO, speed=10.0, queue_bytes=ROOMY)
    with serial_link(wrist.url, encoding=Encoding.INT8) as link:
        list(link.blocks())
    assert link.info.encoding is Encoding.INT8
    assert "int8, lossy, 20 samples a frame" in link.choice.text


def test_an_encoding_that_the_wrist_does_not_offer_is_refused(play):
    wrist = play(recording(1.0), replace(INFO, encodings=(Encoding.INT16,)))
    with pytest.raises(HandshakeError, match="cannot send as RICE, it offers INT16"):
        serial_link(wrist.url, encoding=Encoding.RICE).open()


def test_frames_that_compress_badly_are_sent_in_halves_and_stay_exact(play):
    played = recording(1.0)  # noise of full scale: RICE makes it longer
    info = replace(INFO, samples_per_frame=40)
    wrist = play(played, info, speed=4.0, queue_bytes=ROOMY, frame_bytes=700)
    with serial_link(wrist.url, encoding=Encoding.RICE) as link:
        items = list(link.blocks())
    assert {len(block.samples) for block in blocks(items)} == {20}
    assert np.array_equal(np.concatenate([block.samples for block in blocks(items)]), played)
    assert (link.stats.frames_received, link.stats.frames_lost) == (100, 0)


def test_a_ping_comes_back_and_the_clocks_are_compared(play):
    wrist = play(recording(5.0), INFO, speed=1.01, queue_bytes=ROOMY)
    with serial_link(wrist.url) as link:
        asked_s = link.ping(0xDEADBEEF)
        device_us = [block.device_us for block in blocks(list(link.blocks()))]
        answered_s = link.answered_s(0xDEADBEEF)
    assert answered_s is not None
    assert answered_s >= asked_s
    assert link.answered_s(1) is None
    assert np.ptp(np.diff(device_us)) <= 1  # 10 ms frames, to the rounding
    assert link.stats.drift_ppm == pytest.approx(10_000, abs=2_000)
    assert link.stats.rate_hz == pytest.approx(2020, rel=0.002)


def test_commands_that_cannot_be_read_are_counted_by_the_wrist(play):
    wrist = play(recording(1.0), INFO, speed=2.0, queue_bytes=ROOMY)
    with raw_host(wrist.path) as port:
        bad = (b"\x09\x00", b"\x02\x01\x00", b"\x04\x01x", b"\x04\x00")
        for payload in bad:
            port.write(encode(Frame(FrameType.CONTROL, payload=payload)))
        port.write(encode(Frame(FrameType.DATA)) + b"garbage\0")
        port.write(encode(Frame(FrameType.CONTROL, payload=Control(ControlOp.STATUS).pack())))
        decoder, heard = Decoder(), []
        while not heard:
            heard += decoder.feed(port.read(4096))
    event = Event.unpack(heard[0].payload)
    assert event.code is EventCode.STATUS
    assert event.report.frames_refused == len(bad) + 2
    wrist.stop.set()


def test_a_damaged_frame_behind_a_socket_is_counted_and_located(serve):
    def session(peer: Peer) -> None:
        peer.send(data(99)[5:])  # the host joins in the middle of a frame: no fault of the line
        peer.begin(SMALL)
        damaged = bytearray(data(1))
        damaged[8] ^= 0x10
        peer.send(data(0), bytes(damaged), data(2), end(4))
        peer.wait_for(ControlOp.STOP)

    with serial_link(serve(session)) as link:
        items = list(link.blocks())
    assert [block.first_sample for block in blocks(items)] == [0, 2]
    assert others(items) == [Gap(1, 1), Gap(3, 1), EndOfStream(Status(4, 0))]
    assert (link.stats.frames_corrupt, link.stats.frames_lost) == (1, 2)


def test_a_wrist_that_boots_while_the_port_stays_is_started_again(serve):
    booted = replace(SMALL, boot_id=8)

    def session(peer: Peer) -> None:
        peer.begin(SMALL)
        peer.send(data(0), data(1), declare(booted))
        peer.wait_for(ControlOp.START)
        peer.send(declare(booted, 0, FLAG_STREAMING), data(0), end(1))
        peer.wait_for(ControlOp.STOP)

    with serial_link(serve(session)) as link:
        items = list(link.blocks())
    assert [block.first_sample for block in blocks(items)] == [0, 1, 0]
    assert others(items) == [Restarted(8), EndOfStream(Status(1, 0))]
    assert (link.stats.restarts, link.stats.reconnects, link.stats.frames_lost) == (1, 0, 0)


def test_a_wrist_that_falls_silent_is_reconnected(serve):
    def silent(peer: Peer) -> None:
        peer.begin(SMALL)
        peer.send(data(0), b"\x01\x02\x00" * 9)  # noise is no sign of life
        peer.wait_until_left()

    def alive(peer: Peer) -> None:
        peer.begin(SMALL, seq=5)
        peer.send(data(5), end(6))
        peer.wait_for(ControlOp.STOP)

    with serial_link(serve(silent, alive), silence_s=0.2) as link:
        items = list(link.blocks())
    reconnected, *rest = others(items)
    assert isinstance(reconnected, Reconnected)
    assert reconnected.cause == "no intact frame for 0.2 s"
    assert rest == [Gap(1, 4), EndOfStream(Status(6, 0))]


def test_a_wrist_of_another_protocol_version_is_refused(serve):
    def session(peer: Peer) -> None:
        peer.wait_for(ControlOp.HELLO)
        peer.send(encode(Frame(FrameType.STREAM_INFO, payload=b"\x09" + SMALL.pack()[1:])))
        peer.wait_until_left()

    with pytest.raises(HandshakeError, match="version 9, this host 2"):
        serial_link(serve(session)).open()


def test_a_link_path_that_holds_a_file_is_not_overwritten(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(LinkError, match="is no link to a port"):
        VirtualWrist(recording(1.0), INFO, link=path).run(threading.Event())
    assert path.read_text() == "data"


def test_whole_multiples_of_the_unit_become_counts_exactly():
    counts = recording(1.0)
    emg = (counts * np.float64(0.195)).astype(np.float32)
    back, scale = to_counts(emg, 0.195)
    assert scale == 0.195
    assert np.array_equal(back, counts)
    assert np.array_equal((back * scale).astype(np.float32), emg)


def test_without_a_unit_the_largest_value_becomes_32000_counts():
    counts, scale = to_counts(np.array([[0.5, -2.0], [1.0, 0.0]], np.float32), None)
    assert scale == 2.0 / 32_000
    assert counts.tolist() == [[8000, -32000], [16000, 0]]
    assert to_counts(np.zeros((3, 2), np.float32), None)[1] == 1.0


@pytest.mark.parametrize(
    ("value", "complaint"), [(40_000.0, "do not fit int16"), (np.nan, "NaN or infinity")]
)
def test_values_that_would_clip_are_refused(value, complaint):
    with pytest.raises(EmbridgeError, match=complaint):
        to_counts(np.array([[value]], np.float32), 1.0)
