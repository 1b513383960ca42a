"""A Cyton made of a pseudo-terminal, read by us and by BrainFlow's own driver."""

import os
import select
import threading
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.foreign.base import ForeignSource
from embridge.device.foreign.cyton import CytonSource
from embridge.device.foreign.narrowing import UV_PER_ADC_COUNT
from embridge.firmware_bridge import (
    Block,
    Gap,
    HandshakeError,
    Item,
    LinkLost,
    PortNotFound,
    Reconnected,
)

GREETING = (
    b"OpenBCI V3 8-16 channel\r\nOn Board ADS1299 Device ID: 0x3E\r\nLIS3DH Device ID: 0x33\r\n"
    b"Firmware: v3.1.2\r\n$$$"
)
POLL_S = 0.004
PACKETS_PER_POLL = 4


def adc(samples: int, seed: int = 0) -> NDArray[np.int32]:
    """(T, 8) within the 24 bits, odd, so that no division by a power of two ends in a tie."""
    return np.random.default_rng(seed).integers(-8_000_000, 8_000_000, (samples, 8)) | 1


def packet(number: int, row: NDArray[np.int32]) -> bytes:
    channels = b"".join(int(value).to_bytes(3, "big", signed=True) for value in row)
    return bytes([0xA0, number % 256]) + channels + bytes(6) + b"\xc0"


class FakeCyton:
    """Answers v, d, b and s; streams `played`, each sample as long as it is not in `dropped`.

    before: bytes that arrive before the packet with that index
    cut: how many bytes of the packet with that index get through
    unplug_at: index at which the port vanishes
    """

    def __init__(
        self,
        played: NDArray[np.int32],
        *,
        link: Path | None = None,
        greeting: bytes = GREETING,
        dropped: set[int] = frozenset(),
        before: dict[int, bytes] | None = None,
        cut: dict[int, int] | None = None,
        unplug_at: int | None = None,
    ) -> None:
        self._played, self._greeting = played, greeting
        self._dropped, self._before, self._cut = dropped, before or {}, cut or {}
        self._unplug_at = unplug_at
        self._streaming = False
        self._next = 0
        self.commands = b""
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = Path(os.ttyname(self._slave))
        if link is not None:
            fresh = link.with_suffix(".new")
            fresh.symlink_to(self.path)
            fresh.replace(link)

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.wait(POLL_S):
                self._listen()
                for _ in range(PACKETS_PER_POLL if self._streaming else 0):
                    if self._next == self._unplug_at:
                        return
                    self._send_next()
        finally:
            os.close(self._slave)
            os.close(self._master)

    def _listen(self) -> None:
        if not select.select([self._master], [], [], 0)[0]:
            return
        for command in os.read(self._master, 256):
            self.commands += bytes([command])
            if command == ord("v"):
                self._streaming, self._next = False, 0
                os.write(self._master, self._greeting)
            elif command == ord("d"):
                os.write(self._master, b"updating channel settings to default$$$")
            elif command in b"bs":
                self._streaming = command == ord("b")

    def _send_next(self) -> None:
        at = self._next
        if at < len(self._played):
            whole = packet(at, self._played[at])
            sent = b"" if at in self._dropped else whole[: self._cut.get(at, len(whole))]
            if data := self._before.get(at, b"") + sent:
                os.write(self._master, data)
            self._next += 1


class Playing:
    def __init__(self, pool: ThreadPoolExecutor, fake: FakeCyton) -> None:
        self.fake = fake
        self.stop = threading.Event()
        self.result: Future[None] = pool.submit(fake.run, self.stop)
        self.url = f"cyton://{fake.path}"


@pytest.fixture
def play() -> Iterator[Callable[..., Playing]]:
    """play(adc, **options) -> a Cyton that plays; stopped at the end of the test."""
    started: list[Playing] = []
    with ThreadPoolExecutor() as pool:

        def start(played: NDArray[np.int32], **options: object) -> Playing:
            started.append(Playing(pool, FakeCyton(played, **options)))
            return started[-1]

        yield start
        for playing in started:
            playing.stop.set()
        for playing in started:
            playing.result.result()


def until(source: ForeignSource, sample: int) -> list[Item]:
    """Items up to and including that sample."""
    items: list[Item] = []
    for item in source.blocks():
        items.append(item)
        if isinstance(item, Block) and item.first_sample + len(item.samples) >= sample:
            return items
    raise AssertionError("the stream ended")


def in_counts(played: NDArray[np.int32], step: int = 256) -> NDArray[np.int16]:
    return np.rint(played / step).astype(np.int16)


def assert_each_block_is_where_it_belongs(items: list[Item], played: NDArray[np.int16]) -> None:
    blocks = [item for item in items if isinstance(item, Block)]
    assert blocks
    for block in blocks:
        at = block.first_sample
        assert np.array_equal(block.samples, played[at : at + len(block.samples)])


def test_every_sample_arrives_with_its_declared_scale(play):
    played = adc(600)
    playing = play(played)
    with CytonSource(playing.url) as source:
        items = until(source, 600)
        assert source.info.n_ch == 8
        assert source.info.rate_hz == 250
        assert source.info.unit == "uV"
        assert source.info.firmware == "v3.1.2"
        assert source.info.scale == pytest.approx(256 * 4.5e6 / 24 / (2**23 - 1))
        assert source.stats.samples_received == source.stats.frames_received == 600
        assert source.stats.bytes_received == 600 * 33
    assert all(isinstance(item, Block) for item in items)
    assert_each_block_is_where_it_belongs(items, in_counts(played))


def test_the_board_is_told_to_stop(play):
    playing = play(adc(20))
    with CytonSource(playing.url) as source:
        until(source, 10)
    heard = threading.Event()
    while not playing.fake.commands.endswith(b"s"):
        heard.wait(POLL_S)
    assert playing.fake.commands == b"svdbs"


def test_dropped_packets_leave_holes_of_their_exact_size(play):
    played = adc(900)
    dropped = {100, *range(300, 555), 700, 701}
    playing = play(played, dropped=dropped)
    with CytonSource(playing.url) as source:
        items = until(source, 900)
        assert source.stats.samples_lost == source.stats.frames_lost == len(dropped)
        assert source.stats.frames_corrupt == 0
    assert [item for item in items if isinstance(item, Gap)] == [
        Gap(100, 1),
        Gap(300, 255),
        Gap(700, 2),
    ]
    assert_each_block_is_where_it_belongs(items, in_counts(played))


def test_reading_goes_on_after_garbage_and_after_a_torn_packet(play):
    played = adc(400)
    garbage = np.random.default_rng(1).bytes(500)
    playing = play(played, before={100: garbage, 200: b"\xa0" * 40}, cut={300: 20})
    with CytonSource(playing.url) as source:
        items = until(source, 400)
        assert source.stats.frames_corrupt == 3
    gaps = [item for item in items if isinstance(item, Gap)]
    assert Gap(300, 1) in gaps
    assert sum(gap.samples for gap in gaps) <= 3
    assert_each_block_is_where_it_belongs(items, in_counts(played))


def test_a_port_that_comes_back_continues_after_a_gap_as_long_as_the_absence(play, tmp_path):
    link, played = tmp_path / "dongle", adc(300)
    first = play(played, link=link, unplug_at=150)
    with CytonSource(f"cyton://{link}", reconnect_s=60) as source:
        items = until(source, 100)
        first.result.result()
        play(played, link=link)
        items += until(source, 160)
        assert source.stats.reconnects == 1
    at = next(at for at, item in enumerate(items) if isinstance(item, Reconnected))
    back, gap, block = items[at : at + 3]
    assert gap.samples >= int(250 * back.away_s) - 1
    assert 100 <= gap.first_sample <= 150  # what the port still held went with it
    assert block.first_sample == gap.first_sample + gap.samples
    assert np.array_equal(block.samples[0], in_counts(played)[0])
    assert_each_block_is_where_it_belongs(items[:at], in_counts(played))


def test_a_port_that_stays_away_is_one_line(play):
    playing = play(adc(100), unplug_at=50)
    with (
        CytonSource(playing.url, reconnect_s=0.3) as source,
        pytest.raises(LinkLost, match=r"not back within 0\.3 s") as lost,
    ):
        until(source, 100)
    assert "\n" not in str(lost.value)


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"Arduino ready\r\n$$$", "expected the greeting of an OpenBCI Cyton"),
        (b"Failure: Communications timeout - Device failed to poll Host$$$", "reaches no board"),
        (GREETING.replace(b"LIS3DH", b"On Daisy ADS1299 Device ID: 0x3E\r\nLIS3DH"), "DAISY_BOARD"),
        (b"silence", "no answer to 'v'"),
    ],
)
def test_what_is_no_cyton_is_refused_in_one_line(play, greeting, said):
    playing = play(adc(10), greeting=greeting)
    with (
        pytest.raises(HandshakeError, match=said) as refused,
        CytonSource(playing.url, timeout_s=0.5),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_missing_port_and_a_wrong_option_are_one_line(tmp_path):
    with pytest.raises(PortNotFound, match="no port"), CytonSource(f"cyton://{tmp_path}/none"):
        pass
    with pytest.raises(ConfigError, match="unknown option 'gain'"):
        CytonSource("cyton:///dev/ttyUSB0?gain=24")
    with pytest.raises(ConfigError, match="step='0'"):
        CytonSource("cyton:///dev/ttyUSB0?step=0")
    with pytest.raises(ConfigError, match="the port of the dongle"):
        CytonSource("cyton://")


def test_brainflows_own_driver_reads_the_same_samples_and_the_same_holes(play):
    pytest.importorskip("brainflow", reason="no brainflow: pip install 'embridge[brainflow]'")
    from embridge.device.foreign.brainflow_board import BrainFlowSource

    played, dropped = adc(500), {60, 61, 300}
    playing = play(played, dropped=dropped)
    with CytonSource(playing.url) as source:
        ours = until(source, 500)
    url = f"brainflow://cyton?serial_port={playing.fake.path}"
    with BrainFlowSource(url) as source:
        theirs = until(source, 500)
        assert source.info.scale == pytest.approx(256 * UV_PER_ADC_COUNT, rel=1e-12)
        assert source.stats.samples_lost == len(dropped)
    for items in (ours, theirs):
        assert_each_block_is_where_it_belongs(items, in_counts(played))
        assert [item for item in items if isinstance(item, Gap)] == [Gap(60, 2), Gap(300, 1)]
