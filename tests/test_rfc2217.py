"""A wrist on a serial port of another machine, through pyserial's own RFC 2217 server."""

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import serial
from serial.rfc2217 import PortManager

from embridge.device.sources import open_source
from embridge.firmware_bridge import Block, EndOfStream, PortNotFound, StreamInfo, VirtualWrist
from embridge.firmware_bridge.synthetic_signal import synthetic_counts

INFO = StreamInfo(16, 2000.0, 20, "uV", 0.5, boot_id=7)


class PortWithoutModemLines:
    """A pseudo-terminal has none, and the server asks for them."""

    cts = dsr = ri = cd = False

    def __init__(self, port: serial.Serial) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


class Served:
    """Hands a port to one client; `PortManager` writes its own answers through `write`."""

    def __init__(self, port: serial.Serial, server: socket.socket) -> None:
        self._port = port
        self._connection, _ = server.accept()
        self._manager = PortManager(PortWithoutModemLines(port), self)
        self._left = threading.Event()

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            self._connection.shutdown(socket.SHUT_RDWR)

    def to_network(self) -> None:
        with contextlib.suppress(OSError):  # the client has gone, or the wrist at its end
            while not self._left.is_set():
                if data := self._port.read(max(1, self._port.in_waiting)):
                    self.write(b"".join(self._manager.escape(data)))

    def to_port(self) -> None:
        while data := self._connection.recv(1024):
            self._port.write(b"".join(self._manager.filter(data)))
        self._left.set()
        self._connection.close()


@pytest.fixture
def remote() -> Iterator[tuple[str, np.ndarray]]:
    """The URL of a remote wrist, and the counts that it plays."""
    counts = synthetic_counts(2.0, seed=1)
    paths: queue.Queue[Any] = queue.Queue()
    wrist = VirtualWrist(counts, INFO, on_port=paths.put, queue_bytes=1 << 20)
    stop = threading.Event()
    with ThreadPoolExecutor() as pool, socket.create_server(("127.0.0.1", 0)) as server:
        played = pool.submit(wrist.run, stop)
        port = serial.Serial(str(paths.get(timeout=10)), 921_600, timeout=0.02)

        clients: list[Served] = []

        def serve() -> None:
            served = Served(port, server)
            clients.append(served)
            inward = pool.submit(served.to_port)
            served.to_network()
            inward.result()

        serving = pool.submit(serve)
        yield f"rfc2217://127.0.0.1:{server.getsockname()[1]}?timeout=10", counts
        for client in clients:
            client.hang_up()
        serving.result(timeout=20)
        stop.set()
        played.result(timeout=10)
        port.close()


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)")  # pyserial's own, in rfc2217
def test_every_sample_arrives_from_another_machine(remote):
    url, counts = remote
    with open_source(url) as source:
        *blocks, end = source.blocks()
    assert all(isinstance(block, Block) for block in blocks)
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), counts)
    assert isinstance(end, EndOfStream)
    assert (source.stats.frames_lost, source.stats.frames_corrupt) == (0, 0)


def test_a_loop_back_is_no_wrist():
    from embridge.firmware_bridge.scan import ask_port

    found = ask_port("loop://")
    assert not found.is_wrist
    assert "no answer to HELLO" in found.text


def test_a_remote_port_that_nobody_serves_is_not_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rfc2217://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(PortNotFound, match="cannot open"), open_source(url):
        pass
