"""OpenBCI Cyton on a serial port: `cyton:///dev/ttyUSB0?step=256`.

8 channels at 250 Hz, 24 bits of 0.0224 uV (gain 24), read with OpenBCI's own commands: v resets and
greets, d sets the defaults (gain 24, all channels on), b streams, s stops.

Blocks carry int16, so `step` ADC counts become one count. The default, 256, is the whole range of
the converter, +-187.5 mV: nothing clips unless the converter itself does, and one count is 5.72 uV
(rounding adds 1.65 uV rms; the board's own noise is below 1 uV). A small step is finer but clips
earlier (step=8: 0.18 uV, +-5.9 mV), and the Cyton is DC-coupled: the offset of an electrode alone
is tens of mV. Clipped values are counted in `clipped`, and one line says so.

Losses are exact modulo 256 packets; beyond, the time in which the line was silent tells how many
wraps there were. A host that was too busy for longer than a second to read the port loses a number
of packets that is known modulo 256 (1.024 s) only.
"""

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from embridge.device.errors import ConfigError
from embridge.device.foreign.base import (
    Arrival,
    ForeignSource,
    Log,
    boot_id,
    clipped_text,
    log_warning,
)
from embridge.device.foreign.cyton_packets import (
    CHANNELS,
    NUMBERS,
    PacketDecoder,
    adc_counts,
    numbers,
)
from embridge.device.foreign.narrowing import UV_PER_ADC_COUNT, WHOLE_RANGE, Narrowing
from embridge.device.urls import parse_options, positive
from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.ports import Address, open_port
from embridge.firmware_bridge.stream_info import StreamInfo

BAUD: Final = 115_200
RATE_HZ: Final = 250.0
READ_BYTES: Final = 4096
END_OF_REPLY: Final = b"$$$"


class CytonSource(ForeignSource):
    """A Cyton behind its USB dongle; parameters as in `ForeignSource`.

    Raises ConfigError for a URL without a port or with an option it does not know.
    """

    ADVICE: ClassVar[str] = (
        "check that the board is on (switch at PC), the dongle is set to GPIO 6, and the port"
    )

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        reconnect_s: float = 10.0,
        silence_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        log: Log = log_warning,
    ) -> None:
        super().__init__(
            url,
            timeout_s=timeout_s,
            reconnect_s=reconnect_s,
            silence_s=silence_s,
            clock=clock,
            log=log,
        )
        self._device, options = parse_options(url, {"step": str(WHOLE_RANGE)})
        if not self._device:
            raise ConfigError(f"{url}: expected cyton:///dev/ttyUSB0, the port of the dongle")
        self._step = positive(url, "step", options["step"], WHOLE_RANGE)
        self._narrowing = Narrowing(self._step, f"use {url.split('?')[0]}?step={WHOLE_RANGE}", log)
        self._port: Any = None
        self._decoder = PacketDecoder()

    @property
    def how(self) -> str:
        """What becomes of the 24 bits."""
        return f"24-bit samples, {self._step:g} of their counts to one"

    @property
    def clipped(self) -> int:
        """Values that did not fit int16 so far."""
        return self._narrowing.clipped

    @property
    def _modulus(self) -> int:
        return NUMBERS

    def _connect(self, timeout_s: float) -> StreamInfo:
        deadline_s = self._clock() + timeout_s
        self._port = open_port(Address(self._device, BAUD))
        self._port.write(b"s")
        greeting = self._ask(b"v", deadline_s)
        self._check(greeting)
        self._ask(b"d", deadline_s)
        self._port.write(b"b")
        self._decoder = PacketDecoder()
        version = re.search(r"Firmware: (\S+)", greeting)
        return StreamInfo(
            n_ch=CHANNELS,
            rate_hz=RATE_HZ,
            samples_per_frame=1,
            unit="uV",
            scale=self._step * UV_PER_ADC_COUNT,
            boot_id=boot_id(),
            firmware=clipped_text(version[1] if version else ""),
            device="Cyton",
        )

    def _check(self, greeting: str) -> None:
        line = " ".join(greeting.split())[-80:]
        if "Failure" in greeting:
            raise HandshakeError(f"{self.url}: the dongle reaches no board ({line}); {self.ADVICE}")
        if "OpenBCI" not in greeting:
            raise HandshakeError(
                f"{self.url}: expected the greeting of an OpenBCI Cyton, got {line!r}; "
                "name the port of its dongle"
            )
        if "Daisy" in greeting:
            raise HandshakeError(
                f"{self.url}: 16 channels with a Daisy module are not supported here; use "
                f"brainflow://CYTON_DAISY_BOARD?serial_port={self._device} or take the module off"
            )

    def _ask(self, command: bytes, deadline_s: float) -> str:
        """Send a command; its reply, up to the $$$ that ends it."""
        self._port.write(command)
        reply = b""
        while not reply.endswith(END_OF_REPLY):
            if self._clock() > deadline_s or self._stop.is_set():
                raise TimeoutError(f"no answer to {command.decode()!r}")
            reply += self._port.read(READ_BYTES)
        return reply.decode(errors="replace")

    def _read(self) -> list[Arrival]:
        data: bytes = self._port.read(READ_BYTES)
        arrived_s = self._clock()
        corrupt_before = self._decoder.packets_corrupt
        packets = self._decoder.feed(data)
        self._stats.frames_corrupt += self._decoder.packets_corrupt - corrupt_before
        self._stats.bytes_received += len(data)
        if not packets:
            return []
        samples = self._narrowing.push(adc_counts(packets))  # T C
        return [
            Arrival(number, samples[row : row + 1], arrived_s)
            for row, number in enumerate(numbers(packets))
        ]

    def _disconnect(self) -> None:
        if self._port is not None:
            # The port may be gone already, and then nobody is left to be told.
            with contextlib.suppress(OSError):
                self._port.write(b"s")
            self._port.close()
            self._port = None
