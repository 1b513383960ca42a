"""Any board that BrainFlow reads: `brainflow://CYTON_BOARD?serial_port=/dev/ttyUSB0`.

The address is BrainFlow's name of the board, with or without _BOARD, or its number; the options
are BrainFlow's parameters (serial_port, mac_address, ip_address, ...) and

uv_per_count   BrainFlow gives float64 in uV, blocks carry int16: uV per count. The default is that
               of `cyton`, 5.72 uV and a range of +-187.5 mV; what does not fit is clipped, counted
               in `clipped`, and told in one line
counter        what the package number of the board wraps at, if it goes up by one each sample. It
               is known for the boards in `COUNTERS`; for others, losses are located only when the
               option says so, because BrainFlow also passes on numbers that are shared by several
               samples, or that skip (Ganglion, Daisy)

EMG channels are taken, or all ExG channels of a board that names none EMG.
"""

import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

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
from embridge.device.foreign.narrowing import UV_PER_ADC_COUNT, WHOLE_RANGE, Narrowing
from embridge.device.urls import parse_options, positive
from embridge.firmware_bridge.errors import HandshakeError, PortNotFound
from embridge.firmware_bridge.stream_info import StreamInfo

if TYPE_CHECKING:
    from brainflow.board_shim import BoardShim

POLL_S: Final = 0.01
BUFFER_SAMPLES: Final = 45_000  # in BrainFlow, until they are fetched
MOST_UV_PER_COUNT: Final = 1e6
COUNTERS: Final = {  # package numbers that count samples, by BrainFlow's sources
    "SYNTHETIC_BOARD": 256,
    "CYTON_BOARD": 256,
    "CYTON_WIFI_BOARD": 256,
}


class BrainFlowSource(ForeignSource):
    """A board behind BrainFlow; parameters as in `ForeignSource`.

    reconnect_s is 0, because BrainFlow does not tell an unplugged board from one that has nothing
    to send: silence ends the stream with LinkLost.

    Raises ConfigError when BrainFlow is not installed, knows no such board, or an option is wrong.
    """

    ADVICE: ClassVar[str] = "check that the board is on, and its parameters in the URL"

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        reconnect_s: float = 0.0,
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
        brainflow = _import_brainflow()
        self._parameters = brainflow.BrainFlowInputParams()
        ours = {"uv_per_count": str(WHOLE_RANGE * UV_PER_ADC_COUNT), "counter": ""}
        theirs = {name: str(value) for name, value in vars(self._parameters).items()}
        name, options = parse_options(url, ours | theirs)
        self._board_id = _board_id(url, name, brainflow.BoardIds)
        self._scale = positive(url, "uv_per_count", options["uv_per_count"], MOST_UV_PER_COUNT)
        self._counter = options["counter"]
        for option in theirs:
            kind = type(getattr(self._parameters, option))
            try:
                setattr(self._parameters, option, kind(options[option]))
            except ValueError as error:
                raise ConfigError(
                    f"{url}: {option}={options[option]!r}: expected a number"
                ) from error
        self._narrowing = Narrowing(self._scale, "use a larger uv_per_count=", log)
        self._board: BoardShim | None = None
        self._wraps_at = 1
        self._rows: list[int] = []
        self._number_row = 0

    @property
    def how(self) -> str:
        """What becomes of BrainFlow's numbers."""
        return f"BrainFlow's values, {self._scale:g} uV to one count"

    @property
    def clipped(self) -> int:
        """Values that did not fit int16 so far."""
        return self._narrowing.clipped

    @property
    def _modulus(self) -> int:
        return self._wraps_at

    def _connect(self, timeout_s: float) -> StreamInfo:
        brainflow = _import_brainflow()
        self._board = board = brainflow.BoardShim(self._board_id, self._parameters)
        try:
            board.prepare_session()
            board.start_stream(BUFFER_SAMPLES)
        except brainflow.BrainFlowError as error:
            raise PortNotFound(
                f"{self.url}: BrainFlow cannot open the board ({error}); {self.ADVICE}"
            ) from error
        played_id = board.get_board_id()  # of what plays, for a playback or streaming board
        about = board.get_board_descr(played_id)
        self._rows = about.get("emg_channels") or _exg_channels(self.url, board, played_id)
        self._number_row = about["package_num_channel"]
        self._wraps_at = self._wrap(brainflow.BoardIds(played_id).name)
        return StreamInfo(
            n_ch=len(self._rows),
            rate_hz=float(about["sampling_rate"]),
            samples_per_frame=1,
            unit="uV",
            scale=self._scale,
            boot_id=boot_id(),
            firmware=clipped_text(f"brainflow {board.get_version()}"),
            device=clipped_text(about["name"]),
        )

    def _wrap(self, board: str) -> int:
        if not self._counter:
            wrap = COUNTERS.get(board, 1)
            if wrap == 1:
                self._log(
                    f"{self.url}: whether {board} counts its samples is not known: losses are not "
                    "located; add counter=256, or what it wraps at"
                )
            return wrap
        return round(positive(self.url, "counter", self._counter, 2**32))

    def _read(self) -> list[Arrival]:
        assert self._board is not None
        self._stop.wait(POLL_S)
        data = self._board.get_board_data()  # rows x samples
        arrived_s = self._clock()
        if not data.shape[1]:
            return []
        samples = self._narrowing.push(data[self._rows].T)  # T C
        numbers = data[self._number_row].astype(np.int64)
        breaks = np.flatnonzero((np.diff(numbers) - 1) % self._wraps_at) + 1
        runs = pairwise([0, *breaks.tolist(), len(samples)])
        return [Arrival(int(numbers[a]), samples[a:b], arrived_s) for a, b in runs]

    def _disconnect(self) -> None:
        if self._board is not None:
            if self._board.is_prepared():
                self._board.release_session()  # stops the stream, too
            self._board = None


def _board_id(url: str, name: str, known: Any) -> int:
    """BrainFlow's number of a board; ConfigError when it knows no such board."""
    wanted = name.upper().removesuffix("_BOARD")
    for board in known:
        if wanted in (board.name.removesuffix("_BOARD"), str(board.value)):
            return int(board.value)
    raise ConfigError(
        f"{url}: BrainFlow knows no board {name!r}; expected a name such as CYTON_BOARD, "
        "GANGLION_BOARD or SYNTHETIC_BOARD"
    )


def _exg_channels(url: str, board: "BoardShim", board_id: int) -> list[int]:
    from brainflow.exit_codes import BrainFlowError

    try:
        return [int(row) for row in board.get_exg_channels(board_id)]
    except BrainFlowError as error:
        raise HandshakeError(f"{url}: this board has no EMG channels; name another") from error


def _import_brainflow() -> Any:
    """BrainFlow's module of boards, its log off; ConfigError when it cannot be used."""
    try:
        from brainflow import board_shim

        with warnings.catch_warnings():
            # On Python 3.11 it finds its library through pkg_resources, which warns at import.
            warnings.simplefilter("ignore")
            board_shim.BoardShim.disable_board_logger()
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"BrainFlow cannot be used ({error}); run `pip install 'embridge[brainflow]'`"
        ) from error
    return board_shim
