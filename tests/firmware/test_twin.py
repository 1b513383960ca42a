"""The C wrist and its twin in Python send the same bytes, whatever the host does."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.firmware_bridge import frames
from embridge.firmware_bridge.frames import Frame, FrameType
from embridge.firmware_bridge.protocol import ControlOp
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transmit_queue import TransmitQueue
from embridge.firmware_bridge.wrist_core import WristCore

STEP_US: Final = 15_625  # a sixty-fourth of a second is exact in both clocks
RATE_HZ: Final = 2048


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
    c_wrist: Callable[..., Any], acts: list[Any], per_frame: int, datagram: bool, limit: int
) -> None:
    samples = np.random.default_rng(5).normal(0, 300, (1500, 4)).astype(np.int16)
    wrist, twin = c_wrist(samples, datagram), Twin(samples, per_frame, datagram, limit)
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
