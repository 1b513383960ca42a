"""What must hold of the Python side for any bytes; for atheris and hypothesis alike."""

import numpy as np

from embridge.firmware_bridge import (
    Control,
    DataFrame,
    Decoder,
    Encoding,
    Event,
    Frame,
    FrameType,
    HandshakeError,
    StartRequest,
    StreamInfo,
    TransmitQueue,
    WristCore,
    data_frame,
    decode_data,
    decode_samples,
    encode,
    encode_samples,
)

INFO = StreamInfo(16, 2000.0, 20, "uV", 0.5, boot_id=1)


def check(data: bytes) -> None:
    """data: which check (u8), then its input. Any exception that leaves this is a fault."""
    if data:
        (line, samples, messages, wrist)[data[0] % 4](data[1:])


def line(data: bytes) -> None:
    """Bytes of a serial line, cut anywhere, are frames that survive the wire, or are dropped."""
    cut = data[0] if data else 0
    whole, chunked = Decoder(), Decoder()
    frames = whole.feed(data)
    assert chunked.feed(data[:cut]) + chunked.feed(data[cut:]) == frames
    assert chunked.frames_corrupt == whole.frames_corrupt
    for frame in frames:
        assert Decoder().feed(encode(frame)) == [frame]


def samples(data: bytes) -> None:
    """A payload is refused, or its samples survive being encoded again."""
    if len(data) < 3:
        return
    n_samp, n_ch = data[1], data[2]
    frame = Frame(FrameType.DATA, data[0], n_ch=n_ch, n_samp=n_samp, payload=data[3:])
    try:
        block = decode_data(frame).samples
    except HandshakeError:
        return
    assert block.shape == (n_samp, n_ch)
    assert block.dtype == np.int16
    for encoding in (Encoding.INT16, Encoding.RICE):
        again = encode_samples(block, encoding)
        assert np.array_equal(decode_samples(again, encoding, n_samp, n_ch), block)
    sent = data_frame(DataFrame(0, 0, block), Encoding.INT8)
    scale = np.frombuffer(sent.payload, "<u2", n_ch).astype(np.int64)  # C
    off = np.abs(decode_data(sent).samples.astype(np.int64) - block)  # T C
    assert (2 * off <= scale).all()


def messages(data: bytes) -> None:
    """What is said is understood, and then means the same when it is said again, or refused."""
    for reader in (StreamInfo, Event):
        try:
            understood = reader.unpack(data)
        except HandshakeError:
            continue
        if understood is not None:
            assert repr(reader.unpack(understood.pack())) == repr(understood)
    for parse in (Control.unpack, StartRequest.unpack):
        try:
            parse(data)
        except ValueError:
            continue


def wrist(data: bytes) -> None:
    """A wrist survives any host: it obeys a request or counts it, and stays able to stream."""
    core = WristCore(np.zeros((1000, 16), np.int16), INFO, TransmitQueue(10_000), encode)
    for number, payload in enumerate(data.split(b"\xaa")):
        core.receive(Frame(FrameType.CONTROL, payload=payload), 0.01 * number)
        core.step(0.01 * number)
    assert core.info.pack()
    core.receive(Frame(FrameType.CONTROL, payload=b"\2\0"), 4.0)
    assert core.streaming
