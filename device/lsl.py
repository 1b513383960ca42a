"""Lab Streaming Layer: the EMG and the events of a live run, for recorders and experiments.

NAME           type EMG, float32, all channels, in the unit of the stream; nominal rate as declared
NAME-events    type Markers, one string per event: its JSON line; irregular

Samples are stamped with the time of their arrival on LSL's clock; those of a block are spaced by
the nominal rate and end there. Samples lost on the way are missing, not filled. An event is
stamped when it was decided; its `sample` and `latency_ms` say what it was decided on.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.firmware_bridge.reassembly import Block
from embridge.firmware_bridge.stream_info import StreamInfo

UNITS: Final = {"uV": "microvolts", "mV": "millivolts", "V": "volts"}  # as XDF names them
BUFFER_S: Final = 60  # kept for a receiver that falls behind


class LslOutlets:
    """The two outlets; a `SampleSink`.

    clock: the one of `Block.arrived_s`

    ConfigError when pylsl or its library is missing.
    """

    def __init__(
        self, info: StreamInfo, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pylsl = pylsl = _import_pylsl()
        self._clock = clock
        source = f"{name}-{info.device}"
        emg = pylsl.StreamInfo(
            name, "EMG", info.n_ch, info.rate_hz, pylsl.cf_float32, f"{source}-emg"
        )
        emg.set_channel_labels([f"EMG{number}" for number in range(1, info.n_ch + 1)])
        emg.set_channel_types("EMG")
        emg.set_channel_units(UNITS.get(info.unit, info.unit))
        markers = pylsl.StreamInfo(
            f"{name}-events", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string,
            f"{source}-events",
        )  # fmt: skip
        self._emg = pylsl.StreamOutlet(emg, max_buffered=BUFFER_S)
        self._events = pylsl.StreamOutlet(markers)

    def close(self) -> None:
        """End both streams."""
        del self._emg, self._events  # pylsl closes an outlet with its object

    def push(self, block: Block, values: NDArray[np.float32]) -> None:
        """values: (T, C), the samples of the block in the unit of the stream."""
        ago_s = self._clock() - block.arrived_s
        self._emg.push_chunk(values, self._pylsl.local_clock() - ago_s)

    def push_event(self, line: dict[str, Any]) -> None:
        """Send an event as its JSON line."""
        self._events.push_sample([json.dumps(line)])


def _import_pylsl() -> Any:
    try:
        import pylsl
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: no liblsl beside it
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"pylsl cannot be used ({reason}); run `pip install 'embridge[lsl]'`"
        ) from error
    return pylsl
