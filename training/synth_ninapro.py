"""Synthetic folders in NinaPro's layouts: DB1, DB2, DB5, DB7, with the defects of real ones.

Names of files and variables, shapes, label ranges and the order of repetitions are those of the
real sets; folders of DB5 and DB7 are from memory. EMG comes from the forward model of
`synth_model`, the glove from the same joint angles, so labels, EMG and glove belong together.
Movements are combinations of finger configurations of `synth_poses`, not the real ones: the model
has no wrist. Real subjects hold a movement for 5 s and rest for 3; here both are short.
"""

import io
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.ninapro import EXERCISE_A, EXERCISE_B, EXERCISE_C, SYNTHETIC_HEADER
from embridge.device.recordings import REST
from embridge.training.run_folder import write_atomic
from embridge.training.synth import claim_folder
from embridge.training.synth_glove import raw_glove
from embridge.training.synth_ninapro_defects import DEFECTS, spoil, truncated
from embridge.training.synth_ninapro_emg import SETS as EMG_OF
from embridge.training.synth_ninapro_emg import draw_subject
from embridge.training.synth_poses import STAGES, pose_of

Floats = NDArray[np.float64]

_FORCE = tuple(f"movement_{label}" for label in range(41, 50))
_HEADER_BYTES = 116  # of text at the start of a MATLAB 5 file


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a data set's files have beyond the columns that all have.

    path: of a file, by subject `s` and exercise `e`; extra: (T, n) columns by name, constant here
    """

    path: str
    exercises: tuple[tuple[str, ...], ...]
    labels_restart: bool
    repetitions: int
    extra: dict[str, int]

    def first_label(self, exercise: int) -> int:
        """Label of the first movement of exercise 1, 2 ..."""
        before = self.exercises[: exercise - 1]
        return 1 if self.labels_restart else 1 + sum(map(len, before))


_RESTARTING = ((EXERCISE_A, EXERCISE_B, EXERCISE_C), True)
LAYOUTS = {
    "db1": _Layout("S{s}_A1_E{e}.mat", *_RESTARTING, 10, {}),
    "db2": _Layout(
        "DB2_s{s}/S{s}_E{e}_A1.mat", (EXERCISE_B, EXERCISE_C, _FORCE), False, 6,
        {"acc": 36, "inclin": 2},
    ),
    "db5": _Layout("s{s}/S{s}_E{e}_A1.mat", *_RESTARTING, 6, {"acc": 3}),
    "db7": _Layout(
        "Subject_{s}/S{s}_E{e}_A1.mat", (EXERCISE_B, EXERCISE_C), False, 6,
        {"acc": 36, "gyro": 36, "mag": 36},
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Protocol:
    """How much of the real protocol is acted out; None: all of it."""

    movements: int | None = None  # the first so many of each exercise
    repetitions: int | None = None
    hold_s: float = 1.0
    rest_s: float = 0.6


WHOLE = Protocol()


def write_ninapro(
    folder: Path,
    data_set: str,
    subjects: Iterable[int] = (1, 2),
    seed: int = 0,
    defects: Mapping[tuple[int, int], str] | None = None,
    protocol: Protocol = WHOLE,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write all exercises of `subjects` in the layout of "db1", "db2", "db5" or "db7".

    defects: one of `DEFECTS` for some files, by (subject, exercise); the other files are sound. The
    same arguments give the same bytes, files that are there already are kept. Returns the files;
    raises ConfigError on unusable arguments, or when `folder` holds anything else.
    """
    subjects, planted = tuple(subjects), dict(defects or {})
    layout = _checked(data_set, subjects, planted, protocol)
    claim_folder(
        folder,
        {
            "layout": data_set, "subjects": list(subjects), "seed": seed,
            "defects": sorted([*map(str, file), name] for file, name in planted.items()),
            "protocol": [getattr(protocol, name) for name in Protocol.__slots__],
        },
    )  # fmt: skip
    jobs = [(s, e) for s in subjects for e in range(1, len(layout.exercises) + 1)]
    files = []
    for subject, exercise in jobs:
        path = folder / layout.path.format(s=subject, e=exercise)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            values = _file(data_set, layout, subject, exercise, seed, protocol)
            defect = planted.get((subject, exercise), "")
            spoil(values, defect)
            write_atomic(path, truncated(_mat(values), defect))
        files.append(path)
        if progress:
            progress(len(files), len(jobs))
    return files


def _checked(
    data_set: str,
    subjects: tuple[int, ...],
    defects: dict[tuple[int, int], str],
    protocol: Protocol,
) -> _Layout:
    if data_set not in LAYOUTS:
        raise ConfigError(f"expected a layout out of {', '.join(LAYOUTS)}, got '{data_set}'")
    layout = LAYOUTS[data_set]
    if not subjects or not all(0 < subject < 256 for subject in subjects):
        raise ConfigError(f"expected subjects from 1 to 255, at least one, got {subjects}")
    if unknown := sorted(set(defects.values()) - set(DEFECTS)):
        raise ConfigError(f"expected defects out of {', '.join(DEFECTS)}, got {unknown[0]}")
    exercises = range(1, len(layout.exercises) + 1)
    if absent := [f for f in defects if f[0] not in subjects or f[1] not in exercises]:
        raise ConfigError(
            f"expected defects of subjects {subjects} and exercises 1..{len(layout.exercises)}, "
            f"got one of subject {absent[0][0]}, exercise {absent[0][1]}"
        )
    counts = [n for n in (protocol.movements, protocol.repetitions) if n is not None]
    if min([*counts, 1]) < 1 or min(protocol.hold_s, protocol.rest_s) < 0.2:
        raise ConfigError(f"expected counts from 1 and holds and rests from 0.2 s, got {protocol}")
    return layout


def _file(
    data_set: str, layout: _Layout, subject: int, exercise: int, seed: int, protocol: Protocol
) -> dict[str, Any]:
    """All variables of one file, in the order in which real DB2 files have them."""
    person = draw_subject(np.random.default_rng([seed, subject]))
    random = np.random.default_rng([seed, subject, exercise])
    kind = EMG_OF[data_set]
    names = layout.exercises[exercise - 1][: protocol.movements]
    repetitions = protocol.repetitions or layout.repetitions
    number, repetition = _course(len(names), repetitions, kind.model_hz, protocol)  # T'
    label = np.where(number > 0, number + layout.first_label(exercise) - 1, 0)
    pose = _poses(names, number, kind.model_hz, random)  # T' 20
    trial = round((protocol.hold_s + protocol.rest_s) * kind.model_hz)
    emg = kind.record(pose, trial, person, subject, random)  # T C
    step = kind.model_hz // kind.rate_hz
    label, repetition, pose = label[::step], repetition[::step], pose[::step]
    early = round(0.15 * kind.rate_hz)  # the film is ahead of the hand
    columns = {
        "stimulus": np.roll(label, -early), "restimulus": label,
        "repetition": np.roll(repetition, -early), "rerepetition": repetition,
    }  # fmt: skip
    rows = len(label)
    values: dict[str, Any] = {
        "subject": np.full((1, 1), subject, np.uint8),
        "exercise": np.full((1, 1), exercise, np.uint8),
    }
    values["emg"] = emg
    values |= {name: np.ones((rows, n), np.float32) for name, n in layout.extra.items()}
    values["glove"] = raw_glove(pose, person.glove)
    values |= {name: column.astype(np.uint8)[:, None] for name, column in columns.items()}
    if data_set == "db2" and exercise == 3:
        values |= {"force": np.zeros((rows, 6)), "forcecal": np.ones((2, 6))}
    return values


def _course(
    movements: int, repetitions: int, rate_hz: int, protocol: Protocol
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(T,) number of the movement, 0 at rest, and of its repetition, which runs on in rest."""
    hold, rest = round(protocol.hold_s * rate_hz), round(protocol.rest_s * rate_hz)
    held = np.concatenate([np.zeros(rest // 2), np.ones(hold), np.zeros(rest - rest // 2)])
    number = np.repeat(np.arange(1, movements + 1), repetitions)
    repetition = np.tile(np.arange(1, repetitions + 1), movements)
    course = (number[:, None] * held).astype(np.int64).ravel()
    return course, np.repeat(repetition, hold + rest)


def _poses(
    names: tuple[str, ...], number: NDArray[np.int64], rate_hz: int, random: np.random.Generator
) -> Floats:
    """Joint angles (T, 20) of a hand that goes from rest into each movement and back."""
    rest = pose_of(REST).astype(np.float64)
    reach = np.stack([np.zeros(rest.size), *(_movement(name) - rest for name in names)])
    reach = reach * (1.0 + 0.05 * random.standard_normal(reach.shape))
    wanted = reach[number]  # T 20
    width = round(0.15 * rate_hz)  # a hand takes that long
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    moved = np.stack([np.convolve(joint, kernel, "same") for joint in wanted.T], axis=1)
    time_s = np.arange(len(number))[:, None] / rate_hz
    phase = random.uniform(0, 2 * np.pi, rest.size)
    tremor = 0.02 * np.sin(2 * np.pi * random.uniform(0.4, 1.2, rest.size) * time_s + phase)
    return np.asarray(rest + moved + tremor)


def _movement(name: str) -> Floats:
    """Angles (20,) of a movement: a configuration per finger and how far it goes, by the name."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    stages = [stage for stage in STAGES if stage != REST]
    rest = pose_of(REST).astype(np.float64)
    chosen = [pose_of(stages[random.integers(len(stages))]) for _ in range(5)]
    fingers = [pose[4 * finger : 4 * finger + 4] for finger, pose in enumerate(chosen)]
    far = np.repeat(random.uniform(0.5, 1.1, 5), 4)
    return np.asarray(rest + far * (np.concatenate(fingers) - rest))


def _mat(values: dict[str, Any]) -> bytes:
    """A MATLAB 5 file whose header says that it is synthetic, instead of when it was made."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, values, do_compression=True)
    data = buffer.getvalue()
    header = f"MATLAB 5.0 MAT-file, {SYNTHETIC_HEADER}".encode().ljust(_HEADER_BYTES)
    return header + data[_HEADER_BYTES:]
