"""From a URL to a source of samples.

serial:///dev/ttyACM0?baud=921600     socket://HOST:PORT, rfc2217://HOST:PORT: as pyserial has them
ble://NAME or ADDRESS                 a wrist over Bluetooth LE; ble:// takes the first one found
qemu://mps2-an386?recording=FILE      the C firmware on an emulated board
virtual://?recording=FILE&seed=0      a wrist in this process
virtual+ble://?phy=1M&interval_ms=30  the same behind a virtual radio
replay://FILE?speed=1                 a recording without a wire; speed=0: as fast as it can
myo://NAME   cyton:///dev/ttyUSB0   brainflow://SYNTHETIC_BOARD     other people's devices

Links to a wrist also take encoding=int16|rice|int8.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.recordings import Recording, read_recording
from embridge.device.source import Source
from embridge.device.urls import parse_options, positive, switch
from embridge.firmware_bridge import (
    Encoding,
    PortNotFound,
    SerialTransport,
    StreamInfo,
    Transport,
    WristLink,
    default_samples_per_frame,
    parse_url,
    to_counts,
)
from embridge.firmware_bridge.ports import PYSERIAL_SCHEMES
from embridge.firmware_bridge.transport import bytes_per_s

SYNTHETIC_SECONDS: Final = 20.0
MOST_SPEED: Final = 1e6


def open_source(url: str) -> Source:
    """The source a URL names, not yet opened; ConfigError or PortNotFound for one that names none.

    FileNotFoundError or RecordingError when the URL names a recording that cannot be read.
    """
    scheme = urlsplit(url).scheme
    if scheme in _FOREIGN:
        return _FOREIGN[scheme](url)
    encoding, rest = _take_encoding(url)
    for schemes, opener in _WRISTS:
        if scheme in schemes:
            return WristLink(opener(rest), encoding=encoding)
    known = ", ".join(f"{name}://" for name in sorted([*_FOREIGN, *(s[0] for s, _ in _WRISTS)]))
    raise ConfigError(f"{url}: expected a URL that begins with one of {known}")


def stream_of(
    recording: Recording, model_sha256: bytes = bytes(32)
) -> tuple[NDArray[np.int16], StreamInfo]:
    """A recording as a wrist would send it: counts (T, C) and its declaration."""
    counts, scale = to_counts(recording.emg, recording.emg_unit_per_count)
    channels = recording.emg.shape[1]
    info = StreamInfo(
        n_ch=channels,
        rate_hz=recording.rate_hz,
        samples_per_frame=default_samples_per_frame(recording.rate_hz, channels),
        unit=recording.emg_unit,
        scale=scale,
        boot_id=int(np.random.default_rng().integers(2**32)),
        envelope=recording.is_envelope,
        firmware="virtual 2",
        device=recording.user[:16],
        model_sha256=model_sha256,
    )
    return counts, info


def _take_encoding(url: str) -> tuple[Encoding | None, str]:
    """The `encoding` option, and the URL without it."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = options.pop("encoding", None)
    if name is None:
        return None, url
    names = [encoding.name.lower() for encoding in Encoding]
    if name not in names:
        raise ConfigError(f"{url}: encoding={name!r}: expected one of {', '.join(names)}")
    rest = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return Encoding[name.upper()], rest + (f"?{urlencode(options, safe='/:')}" if options else "")


def _serial(url: str) -> Transport:
    return SerialTransport(url, parse_url(url))


_PLAYER: Final = {"recording": "", "seed": "0", "speed": "1", "loop": ""}


def _played(url: str, options: dict[str, str]) -> tuple[NDArray[np.int16], StreamInfo, bool]:
    """Counts, declaration and whether to loop, of the recording or of the synthetic signal."""
    from embridge.firmware_bridge.synthetic_signal import synthetic_counts

    if options["recording"]:
        counts, info = stream_of(read_recording(Path(options["recording"])))
        return counts, info, switch(url, "loop", options["loop"] or "0")
    if not options["seed"].isdecimal():
        raise ConfigError(f"{url}: seed={options['seed']!r}: expected a whole number")
    seed = int(options["seed"])
    info = StreamInfo(16, 2000.0, 20, "uV", 0.5, boot_id=seed + 1, firmware="virtual 2",
                      device="synthetic")  # fmt: skip
    counts = synthetic_counts(SYNTHETIC_SECONDS, seed=seed)
    return counts, info, switch(url, "loop", options["loop"] or "1")


def _virtual(url: str) -> Transport:
    from embridge.firmware_bridge.virtual_transport import VirtualTransport

    _, options = parse_options(url, {**_PLAYER, "buffer_ms": "500"})
    counts, info, loop = _played(url, options)
    speed = positive(url, "speed", options["speed"], MOST_SPEED)
    buffer_ms = positive(url, "buffer_ms", options["buffer_ms"], 1e6)
    queue_bytes = round(1e-3 * buffer_ms * bytes_per_s(info, info.encoding, info.samples_per_frame))
    return VirtualTransport(url, counts, info, speed=speed, loop=loop, queue_bytes=queue_bytes)


def _qemu(url: str) -> Transport:
    from embridge.firmware_bridge.qemu_transport import QemuTransport

    board, options = parse_options(url, _PLAYER)
    counts, info, loop = _played(url, options)
    speed = positive(url, "speed", options["speed"], MOST_SPEED)
    return QemuTransport(url, board, counts, info, speed=speed, loop=loop)


def _ble(url: str) -> Transport:
    from embridge.firmware_bridge.ble_transport import BleTransport

    return BleTransport(url)


def _virtual_ble(url: str) -> Transport:
    try:
        from embridge.firmware_bridge.virtual_ble import VirtualBleTransport, radio_defaults
    except ImportError as error:
        raise PortNotFound(
            f"{url}: the radio in software is not installed: pip install 'embridge[virtual-ble]'"
        ) from error
    _, options = parse_options(url, {**_PLAYER, **radio_defaults()})
    counts, info, loop = _played(url, options)
    speed = positive(url, "speed", options["speed"], MOST_SPEED)
    return VirtualBleTransport(url, counts, info, options, speed=speed, loop=loop)


def _replay(url: str) -> Source:
    from embridge.device.replay import ReplaySource

    path, options = parse_options(url, {"speed": "1"})
    speed = options["speed"]
    paced = 0.0 if speed == "0" else positive(url, "speed", speed, MOST_SPEED)
    return ReplaySource(Path(path), speed=paced)


def _myo(url: str) -> Source:
    from embridge.device.foreign.myo import MyoSource

    return MyoSource(url)


def _cyton(url: str) -> Source:
    from embridge.device.foreign.cyton import CytonSource

    return CytonSource(url)


def _brainflow(url: str) -> Source:
    from embridge.device.foreign.brainflow_board import BrainFlowSource

    return BrainFlowSource(url)


_WRISTS: Final[tuple[tuple[tuple[str, ...], Callable[[str], Transport]], ...]] = (
    (("serial", *PYSERIAL_SCHEMES), _serial),
    (("virtual",), _virtual),
    (("qemu",), _qemu),
    (("ble",), _ble),
    (("virtual+ble",), _virtual_ble),
)
_FOREIGN: Final[dict[str, Callable[[str], Source]]] = {
    "replay": _replay,
    "myo": _myo,
    "cyton": _cyton,
    "brainflow": _brainflow,
}
