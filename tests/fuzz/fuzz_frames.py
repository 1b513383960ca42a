"""Damaged frames through the decoders of Python and of C, which must agree on every one.

    python tests/fuzz/fuzz_frames.py --inputs 10000000

Accepted or refused, each field, each sample, and what both make of the samples when they encode
them again. Exit status 1 at the first difference, with the input that shows it.
"""

import argparse
import ctypes
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from mutations import Mutations

from embridge.firmware_bridge import (
    Decoder,
    Encoding,
    Frame,
    FrameType,
    HandshakeError,
    decode_data,
    encode,
    encode_samples,
)
from embridge.firmware_bridge.frames import HEADER
from embridge.progress import reporting

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware_bridge" / "firmware"
CORE = ("emb_frame.c", "emb_codec.c", "emb_rice.c", "emb_cobs.c", "emb_crc32.c")
BATCH = 2000
ROUND = 100 * BATCH  # then other frames are damaged
ROOM = 128  # bytes of record for a byte of line, and
SLACK = 1 << 22  # for a single frame that is mostly samples


class CCore:
    """The C core, compiled into `folder`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            sys.exit("fuzz_frames: expected the C compiler `cc`, found none: install gcc")
        library = folder / "agree.so"
        sources = [Path(__file__).with_name("agree.c"), *(FIRMWARE / name for name in CORE)]
        subprocess.run(
            [compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
             f"-I{FIRMWARE}", "-o", library, *sources],
            check=True,
        )  # fmt: skip
        self._receive = ctypes.CDLL(str(library)).agree_receive
        self._receive.restype = ctypes.c_size_t

    def receive(self, line: bytes) -> tuple[bytes, int, int]:
        """Records of the accepted frames (agree.c), how many, and how many pieces were refused."""
        size = ROOM * len(line) + SLACK
        out, counts = ctypes.create_string_buffer(size), (ctypes.c_uint32 * 2)()
        used = self._receive(line, ctypes.c_size_t(len(line)), out, ctypes.c_size_t(size), counts)
        return out[:used], counts[0], counts[1]


class PythonCore:
    """The Python code, fed in chunks of random size; `seen` counts what it met."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.seen: Counter[str] = Counter()

    def receive(self, line: bytes) -> tuple[bytes, int, int]:
        """The same as CCore.receive."""
        decoder, records, at = Decoder(), [], 0
        while at < len(line):
            size = self._rng.choice((1, 7, 64, 1000, 4096))
            records += map(self._record, decoder.feed(line[at : at + size]))
            at += size
        return b"".join(records), decoder.frames_ok, decoder.frames_corrupt

    def _record(self, frame: Frame) -> bytes:
        parts = [_part(HEADER.pack(*frame[:7]) + frame.payload), _part(encode(frame)[:-1])]
        if frame.type is FrameType.DATA:
            try:
                samples = decode_data(frame).samples
                parts.append(b"\1")
                parts += (_part(encode_samples(samples, encoding)) for encoding in Encoding)
                self.seen["decoded"] += 1
            except HandshakeError:
                parts.append(b"\0")
                self.seen["undecodable"] += 1
        return _part(b"".join(parts))


def main() -> None:
    """Run as many inputs as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    python, totals = PythonCore(random.Random(options.seed)), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, reporting() as progress:
        c = CCore(Path(folder))
        for done in range(0, options.inputs, BATCH):
            progress(done, options.inputs, "fuzz: frames through Python and C")
            if done % ROUND == 0:
                mutations = Mutations(random.Random(f"{options.seed} {done}"))
            inputs = [mutations.next() for _ in range(min(BATCH, options.inputs - done))]
            line = b"".join(inputs)
            result = c.receive(line)
            if python.receive(line) != result:
                sys.exit(f"fuzz_frames: Python and C disagree: {_culprit(inputs, c, python)}")
            totals.update(inputs=len(inputs), accepted=result[1], refused=result[2])
    figures = ", ".join(f"{count:,} {name}" for name, count in (totals + python.seen).items())
    print(f"Python and C agree: {figures}")


def _culprit(inputs: list[bytes], c: CCore, python: PythonCore) -> str:
    for data in inputs:
        alone = b"\0" + data + b"\0"
        if python.receive(alone) != c.receive(alone):
            return f"input {alone.hex()}"
    return f"line {b''.join(inputs).hex()}"


def _part(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


if __name__ == "__main__":
    main()
