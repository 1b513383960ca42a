"""Where live gestures go: JSON lines, UDP, LibEMG's consumers, Lab Streaming Layer.

    jsonl              events as JSON lines on stdout
    jsonl:FILE         appended to a file, each line flushed
    udp://HOST:PORT    events as JSON lines, one a datagram
    libemg             decisions as LibEMG's OnlineEMGClassifier sends them, to 127.0.0.1:12346
    libemg://HOST:PORT
    lsl, lsl://NAME    two streams, see `device.lsl`

UDP does not tell whether anybody listens.
"""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError, EmbridgeError
from embridge.firmware_bridge.reassembly import Block
from embridge.firmware_bridge.stream_info import StreamInfo

LIBEMG_ADDRESS: Final = "libemg://127.0.0.1:12346"
REJECTED: Final = -1  # LibEMG's class of a rejected window
EXPECTED: Final = "jsonl[:FILE], udp://HOST:PORT, libemg[://HOST:PORT] or lsl[://NAME]"

Line = dict[str, Any]
Sink = Callable[[Line], None]


class SampleSink(Protocol):
    """Takes the EMG itself."""

    def push(self, block: Block, values: NDArray[np.float32]) -> None:
        """block: as it arrived; values: (T, C), the same samples in the unit of the stream."""


@dataclass(frozen=True, slots=True)
class OpenSink:
    """What an open sink wants to have; None: nothing of that kind."""

    events: Sink | None = None
    decisions: Sink | None = None
    samples: SampleSink | None = None


@contextmanager
def open_sink(
    spec: str, *, info: StreamInfo, labels: Sequence[str], null_gesture: str
) -> Iterator[OpenSink]:
    """Open the sink that `spec` names, for a stream and a package; closed at the end of `with`.

    info: what the opened source declares
    labels: gestures of the package; LibEMG's class numbers are positions in it
    null_gesture: the one that means no gesture

    Raises ConfigError for a spec that names none, or one that cannot be opened; EmbridgeError,
    later, when a line cannot be sent.
    """
    parts = urlsplit(spec)
    if spec == "jsonl" or spec.startswith("jsonl:"):
        with _json_lines(spec.removeprefix("jsonl").removeprefix(":")) as sink:
            yield OpenSink(events=sink)
    elif parts.scheme == "udp":
        with _datagrams(spec) as send:
            yield OpenSink(events=lambda line: send(json.dumps(line) + "\n"))
    elif spec == "libemg" or parts.scheme == "libemg":
        with _datagrams(LIBEMG_ADDRESS if spec == "libemg" else spec) as send:
            try:
                yield OpenSink(decisions=lambda line: send(libemg_text(line, labels, null_gesture)))
            finally:
                send(f"{REJECTED} 0\n")  # nothing may go on moving, also when the link was lost
    elif spec == "lsl" or parts.scheme == "lsl":
        from embridge.device.lsl import LslOutlets

        with closing(LslOutlets(info, parts.netloc or "embridge")) as outlets:
            yield OpenSink(events=outlets.push_event, samples=outlets)
    else:
        raise ConfigError(f"--sink {spec}: expected {EXPECTED}")


def libemg_text(decision: Line, labels: Sequence[str], null_gesture: str) -> str:
    r"""A decision in LibEMG's format `predictions` with velocity, "CLASS VELOCITY\n".

    A rejected window is class -1, as in LibEMG. An accepted "no gesture" is a class like others.
    Velocity is 1 while there is a gesture and 0 otherwise; the strength of a contraction is not
    measured. Source: LibEMG 2.0.3, OnlineEMGClassifier and ClassifierController.

    >>> libemg_text({"gesture": "fist"}, ["rest", "fist"], "rest")
    '1 1\n'
    """
    gesture = decision["gesture"]
    number = REJECTED if gesture is None else labels.index(gesture)
    return f"{number} {int(gesture not in (None, null_gesture))}\n"


@contextmanager
def _json_lines(path: str) -> Iterator[Sink]:
    """Writes to stdout when there is no path."""
    if not path:
        yield lambda line: print(json.dumps(line), flush=True)
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("a", buffering=1))
        except OSError as error:
            raise ConfigError(
                f"--sink jsonl:{path}: {error.strerror}; name another file"
            ) from error

        def write(line: Line) -> None:
            try:
                print(json.dumps(line), file=file)
            except OSError as error:
                raise EmbridgeError(
                    f"--sink jsonl:{path}: cannot write ({error.strerror}); make room"
                ) from error

        yield write


@contextmanager
def _datagrams(spec: str) -> Iterator[Callable[[str], None]]:
    """Sends each text as one datagram."""
    parts = urlsplit(spec)
    try:
        host, port = parts.hostname, parts.port
        if not host or not port:
            raise ValueError("no host or port")
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--sink {spec}: expected {parts.scheme}://HOST:PORT that can be reached ({error})"
        ) from error
    with socket.socket(family, kind) as out:

        def send(text: str) -> None:
            try:
                out.sendto(text.encode(), address)
            except OSError as error:
                raise EmbridgeError(
                    f"--sink {spec}: cannot send ({error}); check the network"
                ) from error

        yield send
