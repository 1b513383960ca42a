"""The live proof: a virtual wrist in its own process, read through a port, against offline.

The wrist plays a test user's recording at its true rate; the decisions made from the bytes that
arrive are compared with those of the same recording computed in one go.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embridge.device.emg2pose import write_emg2pose
from embridge.device.errors import RecordingError
from embridge.device.live import LiveRun, run_live
from embridge.device.outline import Outline
from embridge.device.pipeline import Model, decide_recording
from embridge.device.recordings import REST, Recording, read_recording
from embridge.device.source import physical
from embridge.device.sources import open_source, stream_of
from embridge.firmware_bridge import LinkError

STOP_TIMEOUT_S = 10.0


def write_excerpt(recordings: list[Outline], user: str, seconds: float, path: Path) -> Recording:
    """Join one repetition of every gesture of a user, about `seconds` long, as one recording.

    Taken after the repetitions that profiles are measured on. Values are rounded to ADC counts, so
    that the file holds exactly what the wrist sends.
    """
    own = [recording for recording in recordings if recording.user == user]
    pieces = [piece for recording in own for piece in _pieces(recording)]
    if not pieces:
        raise RecordingError(f"user {user}: no labelled gesture to play")
    head = own[0].head
    each = max(1, int(seconds * head.rate_hz / len(pieces)))
    names = tuple(dict.fromkeys(name for name, _, _ in pieces))
    number = [names.index(name) for name, _, _ in pieces]
    parts = [r.rows.emg(rows.start, min(rows.stop, rows.start + each)) for _, r, rows in pieces]
    emg, length = np.concatenate(parts), [len(part) for part in parts]
    counts, info = stream_of(replace(head, emg=emg))
    excerpt = replace(
        head,
        name=path.stem,
        emg=physical(counts, info.scale),
        emg_unit_per_count=info.scale,
        pose=None,
        pose_valid=np.zeros(len(emg), np.bool_),
        gestures=names,
        gesture=np.repeat(number, length).astype(np.int16),
        trial=np.repeat(np.arange(1, len(parts) + 1), length).astype(np.int32),
        repetition=np.ones(len(emg), np.int16),
    )
    write_emg2pose(path, excerpt)
    return excerpt


def _pieces(recording: Outline) -> Iterator[tuple[str, Outline, range]]:
    """The second trial of each gesture, or what follows the first quarter of a single one."""
    runs = recording.runs
    for number, name in enumerate(recording.head.gestures):
        own = np.flatnonzero(runs.gesture == number)
        if name == REST or not len(own):
            continue
        trials = np.unique(runs.trial[own])
        if len(trials) > 1:
            own = own[runs.trial[own] == trials[1]]
        start, stop = int(runs.start[own[0]]), int(runs.stop[own[-1]])
        skipped = 0 if len(trials) > 1 else (stop - start) // 4
        yield name, recording, range(start + skipped, stop)


@contextmanager
def virtual_wrist(recording: Path, *options: str) -> Iterator[str]:
    """Run `embridge wrist` in a process of its own; yields the URL of its port."""
    with tempfile.TemporaryDirectory(prefix="embridge-") as folder:
        link = Path(folder) / "wrist"
        command = [sys.executable, "-m", "embridge", "wrist", str(recording)]
        process = subprocess.Popen(
            [*command, "--link", str(link), *options], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            if not process.stdout.readline():  # printed once the port is there
                raise LinkError(f"the virtual wrist did not start (exit {process.wait()})")
            yield f"serial://{link}"
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            if process.stdout:
                process.stdout.close()


def live_against_offline(model: Model, recording: Path) -> dict[str, Any]:
    """Stream a recording through the port and compare every decision with the offline ones."""
    events: list[dict[str, Any]] = []
    with virtual_wrist(recording) as url, open_source(url) as source:
        live = run_live(model, source, events.append)
    played = read_recording(recording)
    offline = decide_recording(model, played.emg, played.sample_index)
    return live.summary() | {
        "source": "serial:// (pseudo-terminal, virtual wrist in its own process)",
        "tier": model.tier,
        "stage": model.stage,
        "decisions_offline": len(offline),
        "decisions_equal_offline": equal_share(live, offline),
        "right_share": right_share(live, played, model),
    }


def equal_share(live: LiveRun, offline: list[Any]) -> float:
    """Share of all decisions, live or offline, that are equal in window, gesture and scores."""
    expected = {decision.start: decision for decision in offline}
    same = sum(expected.get(decision.start) == decision for decision in live.decisions)
    return float(same / max(1, len(offline), len(live.decisions)))


def right_share(live: LiveRun, truth: Recording, model: Model) -> float | None:
    """Share of accepted decisions, on windows of one gesture, that name it; None without any."""
    window, names = model.package.manifest.input.window, truth.gestures
    right = []
    for decision in live.decisions:
        rows = truth.trial[decision.start : decision.start + window]
        if decision.gesture is not None and rows[0] == rows[-1]:
            right.append(names[truth.gesture[decision.start]] == decision.gesture)
    return float(np.mean(right)) if right else None
