"""A wrist without hardware behind a BLE radio without hardware, read like any other wrist."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge import gatt
from embridge.firmware_bridge.ble_peripheral import BlePeripheral, Wishes, check_channels
from embridge.firmware_bridge.ble_thread import LoopThread
from embridge.firmware_bridge.ble_transport import Backends, BleTransport
from embridge.firmware_bridge.bleak_bumble import bleak_backends
from embridge.firmware_bridge.capacity import ATT_HEADER_BYTES, PHY_1M, PHY_2M
from embridge.firmware_bridge.errors import PortNotFound
from embridge.firmware_bridge.frames import OVERHEAD_BYTES, Frame, pack
from embridge.firmware_bridge.protocol import Status
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transmit_queue import TransmitQueue
from embridge.firmware_bridge.virtual_air import AirStats
from embridge.firmware_bridge.virtual_radio import Cut, Radio
from embridge.firmware_bridge.wrist_core import WristCore

WRIST_NAME: Final = "embridge"
WRIST_ADDRESS: Final = "F0:E1:D2:C3:B4:A5"
HOST_ADDRESS: Final = "F0:E1:D2:C3:B4:A6"
START_S: Final = 10.0

_PHYS: Final = {"1M": PHY_1M, "2M": PHY_2M}
_DEFAULTS: Final = {
    "phy": "2M",  # or 1M
    "octets": "251",  # 27..251
    "mtu": "247",  # 185..247
    "interval_ms": "15",
    "supervision_ms": "2000",
    "loss": "0",  # probability that a packet with data arrives damaged
    "radio_seed": "0",
    "buffer_ms": "500",  # of int16 samples that the wrist's transmit buffer holds
    "cut": "",  # AT_S:FOR_S, more of them after commas
}


def radio_defaults() -> dict[str, str]:
    """Options of a `virtual+ble://` URL about the radio, and what they are when not given."""
    return dict(_DEFAULTS)


@dataclass(frozen=True, slots=True)
class _Options:
    wishes: Wishes
    loss: float
    seed: int
    buffer_ms: float
    cuts: tuple[Cut, ...]


def _parse(url: str, options: Mapping[str, str]) -> _Options:
    """PortNotFound when an option is out of range."""
    given = {**_DEFAULTS, **options}
    cuts = [cut.split(":") for cut in given["cut"].split(",") if cut]
    try:
        wishes = Wishes(
            _PHYS[given["phy"].upper()],
            int(given["octets"]),
            int(given["mtu"]),
            float(given["interval_ms"]),
            float(given["supervision_ms"]),
        )
        loss, buffer_ms = float(given["loss"]), float(given["buffer_ms"])
        if not (0 <= loss < 1 and 0 < buffer_ms < float("inf")):
            raise ValueError("loss must be at least 0 and below 1, buffer_ms above 0")
        seed = int(given["radio_seed"])
        cut = tuple(Cut(float(at_s), float(for_s)) for at_s, for_s in cuts)
        return _Options(wishes, loss, seed, buffer_ms, cut)
    except (ValueError, KeyError) as error:
        raise PortNotFound(
            f"{url}: {error}; expected phy=1M or 2M, octets=27..251, mtu=185..247, interval_ms in "
            "steps of 1.25, supervision_ms, loss=0..1, radio_seed, buffer_ms, cut=AT_S:FOR_S,..."
        ) from error


class VirtualBleTransport(BleTransport):
    """Plays samples (T, C) int16 as the wrist that `info` declares, through a virtual radio.

    The wrist and the air live from the first `open` to `release`, so that a connection that is lost
    can be made again.

    options: as `radio_defaults` has them, those that differ
    speed, loop: see WristCore

    PortNotFound when an option is out of range, HandshakeError for too many channels.
    """

    def __init__(
        self,
        url: str,
        samples: NDArray[np.int16],
        info: StreamInfo,
        options: Mapping[str, str] | None = None,
        *,
        speed: float = 1.0,
        loop: bool = False,
    ) -> None:
        self._options = _parse(url, options or {})
        check_channels(info.n_ch)
        super().__init__(f"ble://{WRIST_NAME}")
        self.url = url
        self._queue = TransmitQueue(_buffer_bytes(self._options, info))
        self._wrist = WristCore(
            samples,
            info,
            self._queue,
            pack,
            speed=speed,
            loop=loop,
            frame_bytes=gatt.MIN_MTU - ATT_HEADER_BYTES,
        )
        self._radio: Radio | None = None
        self._world: LoopThread | None = None

    @property
    def air(self) -> AirStats:
        """What happened on the air so far; RuntimeError before `open`."""
        if self._radio is None:
            raise RuntimeError("the radio is not on: call open()")
        return self._radio.stats

    @property
    def status(self) -> Status:
        """The wrist's own counts, from the inside; RuntimeError before `open`."""
        if self._radio is None:
            raise RuntimeError("the radio is not on: call open()")
        return self._wrist.status(self._radio.now_s)

    def open(self) -> None:
        """Switch the radio on, the first time, and connect; errors as BleTransport."""
        if self._world is None:
            self._world = LoopThread("virtual-ble")
            self._backends = self._world.call(self._switch_on(), START_S)
        self._thread, self._owns_thread = self._world, False
        super().open()

    def read(self) -> list[Frame]:
        """As BleTransport."""
        if self._radio is not None:
            self._radio.check()
        return super().read()

    def release(self) -> None:
        """Switch the radio off; does nothing the second time."""
        if self._world is not None:
            if self._radio is not None:
                self._world.call(self._radio.switch_off(), START_S)
            self._world.close()
            self._world = None

    async def _switch_on(self) -> Backends:
        options = self._options
        radio = Radio(loss=options.loss, seed=options.seed, cuts=options.cuts)
        peripheral = BlePeripheral(
            radio.device(WRIST_NAME, WRIST_ADDRESS),
            self._wrist,
            self._queue,
            options.wishes,
            clock=lambda: radio.now_s,
        )
        await peripheral.start()
        host = radio.device("host", HOST_ADDRESS)
        await host.power_on()
        radio.on_time(peripheral.step)
        self._radio = radio
        radio.switch_on()
        return bleak_backends(host)


def _buffer_bytes(options: _Options, info: StreamInfo) -> int:
    """Of the transmit buffer: buffer_ms of int16 samples in full frames."""
    room = options.wishes.mtu - ATT_HEADER_BYTES
    sample_bytes = 2 * info.n_ch
    per_frame = (room - OVERHEAD_BYTES) // sample_bytes
    frames = max(1, round(1e-3 * options.buffer_ms * info.rate_hz / per_frame))
    return frames * (OVERHEAD_BYTES + per_frame * sample_bytes)
