"""Myo armband over BLE: `myo://NAME`, `myo://ADDRESS`, `myo://` for the first one; `?mode=raw`.

8 channels at 200 Hz, int8, in no physical unit. Source: Thalmic's `myohw.h`. Four characteristics
notify in turn, each time two consecutive samples.

The protocol has no sequence numbers. The turn of the characteristics is one modulo 4: a loss of 1
to 3 notifications (10 ms each), or any other number that is no multiple of 4, is located, and
reported modulo 4. A loss of exactly 4, 8, ... notifications in a live connection cannot be seen.
After a lost connection the gap is as long as the absence was on the host's clock.

mode=filtered is what the maker's own software streams; mode=raw bypasses the armband's filters.
"""

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from embridge.device.errors import ConfigError
from embridge.device.foreign.base import (
    Arrival,
    ForeignSource,
    Log,
    boot_id,
    clipped_text,
    log_warning,
)
from embridge.device.urls import parse_options
from embridge.firmware_bridge.ble_thread import LoopThread
from embridge.firmware_bridge.errors import HandshakeError, PortNotFound
from embridge.firmware_bridge.stream_info import StreamInfo

if TYPE_CHECKING:
    from bleak import BleakClient
    from bleak.backends.client import BaseBleakClient
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData, BaseBleakScanner

CHANNELS: Final = 8
RATE_HZ: Final = 200.0
SAMPLES: Final = 2  # in a notification
EMG_MODES: Final = {"filtered": 2, "raw": 3}
WAIT_S: Final = 0.05
CLOSE_S: Final = 2.0  # for telling the armband that nobody listens


def uuid(number: int) -> str:
    """A service or characteristic of the armband."""
    return f"d506{number:04x}-a904-deb9-4748-2c7f4a124842"


CONTROL_SERVICE: Final = uuid(0x0001)  # advertised
FIRMWARE: Final = uuid(0x0201)  # major, minor, patch, hardware revision, each u16
COMMAND: Final = uuid(0x0401)
EMG: Final = (uuid(0x0105), uuid(0x0205), uuid(0x0305), uuid(0x0405))

NEVER_SLEEP: Final = bytes([0x09, 1, 1])
MAY_SLEEP: Final = bytes([0x09, 1, 0])


def set_mode(emg: int) -> bytes:
    """The command that starts (2, 3) or stops (0) EMG; IMU and classifier stay off."""
    return bytes([0x01, 3, emg, 0, 0])


class MyoSource(ForeignSource):
    """A Myo armband; parameters as in `ForeignSource`.

    client, scanner: backends of bleak; None: those of the platform
    loop: where bleak runs; None: a thread of the source's own

    Raises ConfigError for an option it does not know, or when bleak is not installed.
    """

    ADVICE: ClassVar[str] = (
        "charge the armband, put it on, and disconnect it from other computers and phones"
    )

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 15.0,
        reconnect_s: float = 30.0,
        silence_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        log: Log = log_warning,
        client: "type[BaseBleakClient] | None" = None,
        scanner: "type[BaseBleakScanner] | None" = None,
        loop: LoopThread | None = None,
    ) -> None:
        super().__init__(
            url,
            timeout_s=timeout_s,
            reconnect_s=reconnect_s,
            silence_s=silence_s,
            clock=clock,
            log=log,
        )
        require_bleak()
        self._wanted, options = parse_options(url, {"mode": "filtered"})
        if options["mode"] not in EMG_MODES:
            raise ConfigError(f"{url}: mode={options['mode']!r}: expected filtered or raw")
        self._mode = EMG_MODES[options["mode"]]
        self._client_backend, self._scanner_backend = client, scanner
        self._given_loop, self._loop = loop, loop
        self._client: BleakClient | None = None
        self._heard: queue.SimpleQueue[Arrival | int | None] = queue.SimpleQueue()

    @property
    def how(self) -> str:
        """Which of its two signals the armband sends."""
        name = next(name for name, mode in EMG_MODES.items() if mode == self._mode)
        return f"notifications of two samples, {name}"

    @property
    def _modulus(self) -> int:
        return len(EMG)

    def _connect(self, timeout_s: float) -> StreamInfo:
        from bleak.exc import BleakError

        self._loop = self._given_loop or LoopThread("myo")
        self._heard = queue.SimpleQueue()
        try:
            return self._loop.call(self._open_unless_stopped(timeout_s), 2 * timeout_s)
        except BleakError as error:
            raise ConnectionError(_one_line(error)) from error

    async def _open_unless_stopped(self, timeout_s: float) -> StreamInfo:
        opening = asyncio.ensure_future(self._open(timeout_s))
        try:
            while not (opening.done() or self._stop.is_set()):
                await asyncio.wait({opening}, timeout=WAIT_S)
        finally:
            opening.cancel()  # no effect when it is done
        return await opening

    async def _open(self, timeout_s: float) -> StreamInfo:
        from bleak import BleakClient

        heard = self._heard
        device = await self._find(timeout_s)
        client = BleakClient(
            device,
            disconnected_callback=lambda _: heard.put(None),
            timeout=timeout_s,
            backend=self._client_backend,
        )
        await client.connect()
        self._client = client
        needed = (FIRMWARE, COMMAND, *EMG)
        missing = [name for name in needed if client.services.get_characteristic(name) is None]
        if missing:
            raise HandshakeError(
                f"{self.url}: {device.name} at {device.address} is no Myo: it has no "
                f"characteristic {missing[0]}; name another"
            )
        version = np.frombuffer(await client.read_gatt_char(FIRMWARE), "<u2")
        for turn, name in enumerate(EMG):
            await client.start_notify(name, self._listener(turn))
        await client.write_gatt_char(COMMAND, NEVER_SLEEP, response=True)
        await client.write_gatt_char(COMMAND, set_mode(self._mode), response=True)
        return StreamInfo(
            n_ch=CHANNELS,
            rate_hz=RATE_HZ,
            samples_per_frame=SAMPLES,
            unit="a.u.",
            scale=1.0,
            boot_id=boot_id(),
            bits=8,
            firmware=clipped_text(".".join(map(str, version[:3]))),
            device=clipped_text(device.name or "Myo"),
        )

    async def _find(self, timeout_s: float) -> "BLEDevice":
        """The armband that the URL means; PortNotFound when none advertises within timeout_s."""
        from bleak import BleakScanner
        from bleak.exc import BleakBluetoothNotAvailableError

        try:
            async with (
                asyncio.timeout(timeout_s),
                BleakScanner(backend=self._scanner_backend) as scanner,
            ):
                async for device, advertised in scanner.advertisement_data():
                    if self._is_wanted(device, advertised):
                        return device
        except TimeoutError:
            pass
        except (BleakBluetoothNotAvailableError, OSError) as error:
            raise PortNotFound(
                f"{self.url}: Bluetooth cannot be used ({_one_line(error)}); switch it on, or "
                "start bluetoothd"
            ) from error
        raise PortNotFound(
            f"{self.url}: no {self._wanted or 'Myo'} advertises within {timeout_s:g} s; "
            f"{self.ADVICE}"
        )

    def _is_wanted(self, device: "BLEDevice", advertised: "AdvertisementData") -> bool:
        if not self._wanted:
            return CONTROL_SERVICE in advertised.service_uuids
        names = {device.name, advertised.local_name}
        return self._wanted in names or self._wanted.lower() == device.address.lower()

    def _listener(self, turn: int) -> Callable[[object, bytearray], None]:
        heard = self._heard

        def hear(_: object, data: bytearray) -> None:
            if len(data) != SAMPLES * CHANNELS:
                heard.put(len(data))
                return
            samples = np.frombuffer(bytes(data), np.int8).reshape(SAMPLES, CHANNELS)  # T C
            heard.put(Arrival(turn, samples.astype(np.int16), self._clock()))

        return hear

    def _read(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        wait_s = WAIT_S
        while True:
            try:
                item = self._heard.get(timeout=wait_s)
            except queue.Empty:
                return arrivals
            wait_s = 0.0
            if item is None:
                if not arrivals:
                    raise ConnectionError("the connection broke")
                self._heard.put(None)
                return arrivals
            if isinstance(item, int):
                self._stats.bytes_received += item
                self._stats.frames_corrupt += 1
                continue
            self._stats.bytes_received += item.samples.size
            arrivals.append(item)

    def _disconnect(self) -> None:
        if self._loop is None:
            return
        client, self._client = self._client, None
        if client is not None:
            # The armband may be gone already, and then nobody is left to be told.
            with contextlib.suppress(TimeoutError):
                self._loop.call(_say_goodbye(client), CLOSE_S)
        if self._loop is not self._given_loop:
            self._loop.close()
        self._loop = None


async def _say_goodbye(client: "BleakClient") -> None:
    from bleak.exc import BleakError

    with contextlib.suppress(BleakError, OSError):
        if client.is_connected:
            await client.write_gatt_char(COMMAND, set_mode(0), response=True)
            await client.write_gatt_char(COMMAND, MAY_SLEEP, response=True)
    with contextlib.suppress(BleakError, OSError):
        await client.disconnect()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def require_bleak() -> None:
    """ConfigError when bleak is not installed."""
    try:
        import bleak  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "BLE needs bleak, which is not installed; run `pip install 'embridge[ble]'`"
        ) from error
