"""Kill -9 a recorder many times at random moments, and look at what it leaves.

    python tests/kill_recorder.py KILLS FOLDER [SEED]

Each time a process records a fast stream, and compresses what it recorded; it tells through shared
memory how much it has recorded. One JSON line tells what was found; the first file that is not
whole ends it with a traceback.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from embridge.device.recorder import record
from embridge.firmware_bridge import Block, EndOfStream, LinkStats, Status, StreamInfo

CHANNELS, PER_FRAME, FRAME_S = 16, 20, 2**-6  # exact in binary
FLUSH_FRAMES = 4
MOST_S = 0.12  # of recording before the kill
FRAMES = 4000


class FastSource:
    """A `Source` of numbered samples, on a clock of its own that runs as fast as it is read."""

    how = ""

    def __init__(self, frames, told):
        self.info = StreamInfo(CHANNELS, PER_FRAME / FRAME_S, PER_FRAME, "uV", 0.5, boot_id=1)
        self.stats = LinkStats()
        self.frames, self.told = frames, told

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def stop(self):
        pass

    def blocks(self):
        for frame in range(self.frames):
            first = frame * PER_FRAME
            yield Block(
                first_sample=first, samples=samples(first, first + PER_FRAME),
                arrived_s=(frame + 1) * FRAME_S, seq=frame, device_us=0,
            )  # fmt: skip
            self.told[0] = (
                frame + 1
            )  # it has been recorded; one store, so that a kill tears nothing
        yield EndOfStream(Status(self.frames, 0))


def samples(first, last):
    """Counts that tell which sample they are."""
    number = np.arange(first, last)[:, None] * 31 + np.arange(CHANNELS)
    return (number % 60_000 - 30_000).astype(np.int16)  # T C


def child(path, frames, told):
    record(
        FastSource(frames, told), path, flush_s=FLUSH_FRAMES * FRAME_S, clock=lambda: 0.0,
        wall_clock=lambda: 1.7e9,
    )  # fmt: skip


def kill_once(path, frames, after_s):
    """Record, kill; return (frames recorded by then, frames in the file)."""
    told = np.frombuffer(mmap.mmap(-1, 8), np.int64)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            child(path, frames, told)
            code = 0
        finally:
            os._exit(code)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the recorder failed"
    return int(told[0]), frames_in(path) if path.exists() else 0


def frames_in(path):
    """Whole frames that a plain reader finds, each checked."""
    with h5py.File(path) as file:
        rows = file["emg2pose/timeseries"][:]
    index = np.arange(len(rows))
    assert np.array_equal(rows["sample_index"], index)
    assert np.array_equal(rows["seq"], index // PER_FRAME)
    assert np.array_equal(rows["emg"], samples(0, len(rows)) * np.float32(0.5))
    assert len(rows) % PER_FRAME == 0
    return len(rows) // PER_FRAME


def main(kills, folder, seed):
    chance = random.Random(seed)
    found = dict.fromkeys(("kills", "absent", "growing", "compressing", "complete"), 0)
    most_lost = 0
    for number in range(kills):
        path = folder / f"{number}.h5"
        frames = chance.randrange(20, FRAMES)
        recorded, kept = kill_once(path, frames, chance.uniform(0, MOST_S))
        # The frame under way when the kill came may be in the file, and not yet be told.
        assert kept >= recorded - FLUSH_FRAMES + (recorded == 0) * FLUSH_FRAMES, (recorded, kept)
        assert kept <= recorded + 1, (recorded, kept)
        partial = any(file.name == f".{path.name}.partial" for file in folder.iterdir())
        state = (
            "absent" if not path.exists() else "compressing" if partial
            else "growing" if recorded < frames else "complete"
        )  # fmt: skip
        most_lost = max(most_lost, recorded - kept)
        found["kills"] += 1
        found[state] += 1
        for file in folder.iterdir():
            file.unlink()
    print(json.dumps(found | {"most_frames_lost": most_lost, "flush_frames": FLUSH_FRAMES}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
