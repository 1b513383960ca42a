"""What a folder of recordings holds, and what is wrong with it.

`describe` sums up, `check` finds faults; neither changes a file. The limits are named below.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from embridge.device.errors import RecordingError
from embridge.device.libemg_csv import SOURCE as LIBEMG
from embridge.device.recordings import (
    REST,
    Recording,
    find_recordings,
    natural_key,
    open_recordings,
    read_recording,
    remarks_by_user,
)

CLIPPED_SHARE = 0.001  # of a channel's samples pinned to its extreme
HUM_SHARE = 0.5  # of a channel's power from 20 to 450 Hz: more hum than EMG
POSE_INVALID_SHARE = 0.5
RATE_ERROR_SHARE = 0.01
TRIALS_NEEDED = 2  # per gesture: one to learn from, one to test on


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: an `error` makes the file unusable, a `warning` makes results worse."""

    severity: Literal["error", "warning"]
    file: str  # "" for a fault of the folder as a whole
    text: str
    action: str


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What a file or folder of recordings holds; seconds by gesture leave unlabelled time out."""

    files: int
    sources: tuple[str, ...]
    users: tuple[str, ...]
    gesture_seconds: dict[str, float]
    channels: tuple[int, ...]
    rates_hz: tuple[float, ...]
    hours: float
    pose_joints: tuple[int, ...]  # 0: files without pose
    pose_valid_share: float
    synthetic: bool  # of any file
    remarks: tuple[str, ...]  # of readers, each with the users it concerns


def describe(path: Path) -> DataSummary:
    """Sum up the recordings at `path`; raises RecordingError where one cannot be read."""
    files = samples = valid = 0
    seconds: Counter[str] = Counter()
    total_s = 0.0
    kinds: set[tuple[str, str, int, float, int]] = set()
    synthetic = False
    remarks: list[tuple[str, tuple[str, ...]]] = []
    for recording in open_recordings(path, allow_nonfinite=True):
        files += 1
        samples += len(recording.emg)
        valid += int(recording.pose_valid.sum())
        total_s += len(recording.emg) / recording.rate_hz
        seconds.update(_gesture_seconds(recording))
        joints = 0 if recording.pose is None else recording.pose.shape[1]
        channels = recording.emg.shape[1]
        kinds.add((recording.source, recording.user, channels, recording.rate_hz, joints))
        synthetic |= recording.synthetic
        remarks.append((recording.user, recording.remarks))
    return DataSummary(
        files=files,
        sources=tuple(sorted({kind[0] for kind in kinds})),
        users=tuple(sorted({kind[1] for kind in kinds}, key=natural_key)),
        gesture_seconds=dict(seconds),
        channels=tuple(sorted({kind[2] for kind in kinds})),
        rates_hz=tuple(sorted({kind[3] for kind in kinds})),
        hours=total_s / 3600.0,
        pose_joints=tuple(sorted({kind[4] for kind in kinds})),
        pose_valid_share=valid / samples,
        synthetic=synthetic,
        remarks=remarks_by_user(remarks),
    )


def check(path: Path) -> list[Finding]:
    """Find what is wrong with the recordings at `path`, never stopping at a bad file.

    Raises RecordingError only where `path` holds no recordings at all.
    """
    findings: list[Finding] = []
    outlines: list[_Outline] = []
    for file in find_recordings(path):
        try:
            recording = read_recording(file, allow_nonfinite=True)
        except RecordingError as error:
            findings.append(Finding("error", file.name, str(error), "replace or remove the file"))
            continue
        findings += check_recording(recording, file.name)
        outlines.append(_outline(recording, file.name))
    return findings + list(_check_together(outlines))


def check_recording(recording: Recording, file: str) -> list[Finding]:
    """Faults of one recording by itself."""
    findings = [*_check_pose(recording, file), *_check_rate(recording, file)]
    finite = np.isfinite(recording.emg)  # T C
    if not finite.all():
        columns = np.flatnonzero(~finite.all(axis=0))
        text = f"NaN or infinity in {_channels(columns)}, {np.sum(~finite)} values in all"
        findings.append(Finding("error", file, text, "leave the file out or record it again"))
        return findings  # no figure of such a signal means anything
    return findings + list(_check_signal(recording, file))


@dataclass(frozen=True, slots=True)
class _Outline:
    """What is kept of a recording to compare it with the others."""

    file: str
    channels: int
    rate_hz: float
    joints: int | None  # None: without pose
    trials: dict[str, int]


def _outline(recording: Recording, file: str) -> _Outline:
    trials = {}
    for number in np.unique(recording.gesture[recording.gesture >= 0]):
        name = recording.gestures[number]
        own = np.unique(recording.trial[recording.gesture == number])
        if name != REST:
            trials[name] = int(np.sum(own > 0))
    joints = None if recording.pose is None else recording.pose.shape[1]
    return _Outline(file, recording.emg.shape[1], recording.rate_hz, joints, trials)


def _gesture_seconds(recording: Recording) -> dict[str, float]:
    numbers, counts = np.unique(recording.gesture[recording.gesture >= 0], return_counts=True)
    return {
        recording.gestures[number]: float(count / recording.rate_hz)
        for number, count in zip(numbers, counts, strict=True)
    }


def _check_pose(recording: Recording, file: str) -> Iterator[Finding]:
    if recording.pose is None:
        action = "training needs paired hand pose; use it for live runs only"
        if recording.source == LIBEMG:  # of its kind, none has
            action = "use it for linear probe and few-shot evaluation, or live runs"
        yield Finding(
            "warning" if recording.source == LIBEMG else "error", file, "no hand pose", action
        )
        return
    invalid = 1.0 - float(recording.pose_valid.mean())
    if invalid > POSE_INVALID_SHARE:
        text = f"hand tracking failed in {invalid:.0%} of the samples"
        severity: Literal["error", "warning"] = "error" if invalid == 1.0 else "warning"
        yield Finding(severity, file, text, "leave the file out or record it again")


def _check_rate(recording: Recording, file: str) -> Iterator[Finding]:
    measured = recording.measured_rate_hz
    if measured is None or abs(measured / recording.rate_hz - 1.0) <= RATE_ERROR_SHARE:
        return
    text = f"rate is {recording.rate_hz:g} Hz, but its time stamps say {measured:.5g} Hz"
    yield Finding("warning", file, text, "samples were lost, or the rate is wrong: record it again")


def _check_signal(recording: Recording, file: str) -> Iterator[Finding]:
    """Faults of finite EMG."""
    emg = recording.emg  # T C
    flat = np.ptp(emg, axis=0) == 0
    if flat.any():
        text = f"{_channels(np.flatnonzero(flat))} never changes"
        yield Finding("error", file, text, "check electrode and cable, then record it again")
    clipped = clipped_share(emg, recording.is_envelope)  # C
    bad = (clipped > CLIPPED_SHARE) & ~flat
    if bad.any():
        text = f"{_channels(np.flatnonzero(bad))} clipped in {clipped[bad].max():.1%} of samples"
        yield Finding("warning", file, text, "lower the amplifier's gain")
    if recording.is_envelope or len(emg) < recording.rate_hz:
        return
    for mains_hz in (50.0, 60.0):
        share = power_share(emg, recording.rate_hz, mains_hz)  # C
        hum = share > HUM_SHARE
        if hum.any():
            text = f"{mains_hz:g} Hz hum holds {share[hum].max():.0%} of the power of "
            text += _channels(np.flatnonzero(hum))
            yield Finding("warning", file, text, "switch the notch filter on; check skin contact")


def clipped_share(emg: NDArray[np.float32], is_envelope: bool) -> NDArray[np.float64]:
    """Share of samples pinned to the highest or lowest value, (C,).

    A signal within its range thins out towards its extremes; a clipped one piles up there, with
    more samples on the extreme itself than on the value next to it. An envelope's lowest value is
    its resting level and does not count.
    """
    share = np.zeros(emg.shape[1])
    for channel, signal in enumerate(emg.T):
        for values in (signal,) if is_envelope else (signal, -signal):
            top = values.max()
            pinned = int(np.sum(values == top))
            below = values[values < top]
            beside = int(np.sum(below == below.max())) if below.size else 0
            if pinned >= 10 and pinned > 2 * beside:
                share[channel] += pinned / values.size
    return share


def power_share(emg: NDArray[np.float32], rate_hz: float, centre_hz: float) -> NDArray[np.float64]:
    """Share of each channel's power from 20 to 450 Hz that lies within 1.5 Hz of a frequency."""
    frequency_hz, power = scipy.signal.welch(emg, rate_hz, nperseg=int(rate_hz), axis=0)  # F C
    band = (frequency_hz >= 20.0) & (frequency_hz <= 450.0)
    near = band & (np.abs(frequency_hz - centre_hz) <= 1.5)
    total = power[band].sum(axis=0)
    return np.asarray(power[near].sum(axis=0) / np.where(total > 0, total, 1.0), np.float64)


def _check_together(outlines: list[_Outline]) -> Iterator[Finding]:
    """Faults that only show between files."""
    trials: Counter[str] = Counter()
    kinds = Counter((outline.channels, outline.rate_hz) for outline in outlines)
    for outline in outlines:
        trials.update(outline.trials)
        channels, rate_hz = kinds.most_common(1)[0][0]
        if (outline.channels, outline.rate_hz) != (channels, rate_hz):
            text = (
                f"{outline.channels} channels at {outline.rate_hz:g} Hz, but most files here have "
                f"{channels} at {rate_hz:g} Hz"
            )
            yield Finding("error", outline.file, text, "keep one kind of recording per folder")
    yield from _check_joints(outlines)
    for gesture, count in sorted(trials.items()):
        if count < TRIALS_NEEDED:
            text = f"gesture '{gesture}' has {count} trial in all files together"
            action = f"record at least {TRIALS_NEEDED}, or leave the gesture out"
            yield Finding("warning", "", text, action)


def _check_joints(outlines: list[_Outline]) -> Iterator[Finding]:
    """Poses of different width in one folder."""
    joints = Counter(outline.joints for outline in outlines if outline.joints is not None)
    for outline in outlines:
        usual = joints.most_common(1)[0][0] if joints else None
        if outline.joints not in (None, usual):
            text = f"pose of {outline.joints} values, but most files here have {usual}"
            action = "gloves of 18 and 22 sensors go together with data.glove_sensors=18; keep "
            action += "other kinds in folders of their own"
            yield Finding("warning", outline.file, text, action)


def _channels(numbers: NDArray[np.intp]) -> str:
    """How a message names channels: "channel 3", "channels 3, 4"."""
    return f"channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
