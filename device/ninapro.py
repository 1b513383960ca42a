"""NinaPro .mat files: DB1, DB2, DB3, DB5 and DB7 by one reader.

Which data set a file belongs to follows from its own keys and shapes:

    emg columns   set          rate      emg
    10            DB1          100 Hz    rectified RMS envelope (Atzori et al. 2014)
    12            DB2, DB3     2000 Hz   raw (Atzori et al. 2014)
    12            DB7          2000 Hz   raw; has gyro and mag, or an 18-column glove
                                         (Krasoulis et al. 2017)
    16            DB5          200 Hz    raw, two Myo armbands (Pizzolato et al. 2017)

Variables are addressed by name (their order differs between files) and cut to the shortest (they
differ by a row in some). Labels restart at 1 in each exercise of DB1 and DB5 and run on in the
others; `gesture` is the same number for the same movement in every file of one set, 0 is rest.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from embridge.device.errors import RecordingError
from embridge.device.recordings import REST, Recording

EXERCISE_A = (
    "index_flexion", "index_extension", "middle_flexion", "middle_extension",
    "ring_flexion", "ring_extension", "little_finger_flexion", "little_finger_extension",
    "thumb_adduction", "thumb_abduction", "thumb_flexion", "thumb_extension",
)  # fmt: skip
EXERCISE_B = (
    "thumb_up", "index_middle_extension", "ring_little_flexion", "thumb_opposing_little_base",
    "abduction_of_all_fingers", "fist", "pointing_index", "adduction_of_extended_fingers",
    "wrist_supination_middle_axis", "wrist_pronation_middle_axis",
    "wrist_supination_little_axis", "wrist_pronation_little_axis",
    "wrist_flexion", "wrist_extension", "wrist_radial_deviation", "wrist_ulnar_deviation",
    "wrist_extension_closed_hand",
)  # fmt: skip
EXERCISE_C = (
    "large_diameter", "small_diameter", "fixed_hook", "index_finger_extension", "medium_wrap",
    "ring_grasp", "prismatic_four_finger", "stick", "writing_tripod", "power_sphere",
    "three_finger_sphere", "precision_sphere", "tripod", "prismatic_pinch", "tip_pinch", "quadpod",
    "lateral", "parallel_extension", "extension_type", "power_disk", "open_bottle", "turn_screw",
    "cut",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _DataSet:
    """What a NinaPro file does not say of itself."""

    source: str
    rate_hz: float
    emg_unit: str
    emg_unit_per_count: float | None
    exercises: tuple[tuple[str, ...], ...]  # movement names by exercise
    labels_restart: bool  # at 1 in each exercise

    @property
    def movements(self) -> tuple[str, ...]:
        return tuple(name for exercise in self.exercises for name in exercise)


_FORCE = tuple(f"movement_{label}" for label in range(41, 50))  # exercise D, without known names
_DB1 = _DataSet("ninapro-db1", 100.0, "V", None, (EXERCISE_A, EXERCISE_B, EXERCISE_C), True)
_DB2 = _DataSet("ninapro-db2", 2000.0, "V", None, (EXERCISE_B, EXERCISE_C, _FORCE), False)
_DB5 = _DataSet("ninapro-db5", 200.0, "count", 1.0, (EXERCISE_A, EXERCISE_B, EXERCISE_C), True)
_DB7 = _DataSet("ninapro-db7", 2000.0, "V", None, (EXERCISE_B, EXERCISE_C), False)


def read_ninapro(path: Path) -> Recording:
    """Read one .mat file; raises RecordingError when it is not a whole NinaPro file."""
    shapes, values = _load(path)
    data_set = _data_set(path, shapes)
    stimulus = _labels(path, values, "stimulus")
    repetition = _labels(path, values, "repetition")
    glove = values.get("glove")
    columns = [values["emg"], stimulus, repetition] + ([] if glove is None else [glove])
    rows = min(len(column) for column in columns)
    gesture = _gesture_numbers(path, stimulus[:rows], values, data_set)
    repetition = np.where(gesture > 0, repetition[:rows], np.int16(0))
    pose = None if glove is None else glove[:rows].astype(np.float32)  # T J
    valid = np.zeros(rows, bool) if pose is None else np.isfinite(pose).all(axis=1)
    if "force" in shapes:  # exercise D measures finger forces; its glove column means nothing
        valid[:] = False
    return Recording(
        name=path.stem,
        source=data_set.source,
        user=f"s{_number(path, values, 'subject', 'S')}",
        session="1",  # one donning of the electrodes per subject
        rate_hz=data_set.rate_hz,
        emg=values["emg"][:rows].astype(np.float32),
        emg_unit=data_set.emg_unit,
        is_envelope=data_set is _DB1,
        pose=pose,
        pose_unit="raw glove",
        pose_valid=valid,
        gestures=(REST, *data_set.movements),
        gesture=gesture,
        trial=_trials(gesture, repetition),
        repetition=repetition,
        emg_unit_per_count=data_set.emg_unit_per_count,
        ring=8,  # then two rings (DB5), or electrodes on single muscles
    )


def _load(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, NDArray[Any]]]:
    """Shapes of all variables, and the values of those read here."""
    wanted = [
        "emg", "glove", "stimulus", "restimulus", "repetition", "rerepetition", "subject",
        "exercise",
    ]  # fmt: skip
    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        values = scipy.io.loadmat(path, variable_names=wanted)
    except Exception as error:  # scipy raises a dozen unrelated kinds on damaged files
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise RecordingError(
            f"{path.name}: cannot be read as MATLAB 5 .mat (truncated file?): expected a NinaPro "
            f"recording, got '{reason}': download it again"
        ) from error
    values = {name: values[name] for name in wanted if name in values}
    if "emg" not in values:
        raise RecordingError(
            f"{path.name}: expected a NinaPro recording with variable 'emg', got {sorted(shapes)}: "
            "this is another kind of .mat file"
        )
    for name, array in values.items():
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise RecordingError(
                f"{path.name}: expected '{name}' as a numeric matrix of (T, columns), got "
                f"{array.dtype} {array.shape}: download it again"
            )
    return shapes, values


def _data_set(path: Path, shapes: dict[str, tuple[int, ...]]) -> _DataSet:
    channels = shapes["emg"][1]
    if channels == 12:
        is_db7 = "gyro" in shapes or "mag" in shapes or shapes.get("glove", (0, 0))[-1] == 18
        return _DB7 if is_db7 else _DB2
    if channels not in (10, 16):
        raise RecordingError(
            f"{path.name}: expected 10 (DB1), 12 (DB2, DB3, DB7) or 16 (DB5) columns in 'emg', got "
            f"{channels}: other NinaPro sets are not supported"
        )
    return _DB1 if channels == 10 else _DB5


def _labels(path: Path, values: dict[str, NDArray[Any]], name: str) -> NDArray[np.int16]:
    """The relabelled column `re<name>` where there is one, else `name`, (T,)."""
    labels = values.get(f"re{name}", values.get(name))
    if labels is None:
        raise RecordingError(
            f"{path.name}: expected variable 're{name}' or '{name}', got neither: use the original "
            "NinaPro file"
        )
    return labels.ravel().astype(np.int16)


def _number(path: Path, values: dict[str, NDArray[Any]], name: str, letter: str) -> int:
    """A scalar variable, or where it is absent the number after `letter` in the file name."""
    value = values.get(name)
    if value is not None and value.size == 1:
        return int(value.item())
    match = re.search(rf"(?:^|_){letter}(\d+)", path.stem, re.IGNORECASE)
    if match is None:
        raise RecordingError(
            f"{path.name}: expected variable '{name}' or a name like S1_A1_E1.mat, got neither: "
            "give the file its original name"
        )
    return int(match[1])


def _gesture_numbers(
    path: Path, labels: NDArray[np.int16], values: dict[str, NDArray[Any]], data_set: _DataSet
) -> NDArray[np.int16]:
    """Labels of this file -> numbers that mean the same in every file of the set."""
    first, count = 0, len(data_set.movements)
    if data_set.labels_restart:
        exercise = _number(path, values, "exercise", "E")
        if not 1 <= exercise <= len(data_set.exercises):
            raise RecordingError(
                f"{path.name}: expected exercise 1..{len(data_set.exercises)}, got {exercise}: use "
                "the original NinaPro file"
            )
        first = sum(len(names) for names in data_set.exercises[: exercise - 1])
        count = len(data_set.exercises[exercise - 1])
    low, high = labels.min(initial=0), labels.max(initial=0)
    if low < 0 or high > count:
        raise RecordingError(
            f"{path.name}: expected movement labels 0..{count} of {data_set.source}, got "
            f"{low}..{high}: use the original NinaPro file"
        )
    return np.where(labels > 0, labels + np.int16(first), np.int16(0))


def _trials(gesture: NDArray[np.int16], repetition: NDArray[np.int16]) -> NDArray[np.int32]:
    """Number the contiguous stretches of one movement and repetition 1, 2, ...; rest is 0."""
    changed = (np.diff(gesture, prepend=0) != 0) | (np.diff(repetition, prepend=0) != 0)
    number = np.cumsum(changed & (gesture > 0))
    return np.where(gesture > 0, number, 0).astype(np.int32)
