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

Left-handed subjects wore ring and glove on the left arm, whose muscles lie the other way round; see
`ninapro_subjects`. Gloves have 22 sensors, or 18 (some of DB7): the same without those of the four
distal joints (DIP), in the same order [from memory, not verified on a file].
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from embridge.device.errors import RecordingError
from embridge.device.ninapro_subjects import mirror_ring, remarks_on, wore_left
from embridge.device.recordings import AS_USUAL, REST, ReadOptions, Recording

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
GLOVE_SENSORS = (  # CyberGlove II; 1 is the thumb, F flexion, A abduction
    "CMC1_F", "CMC1_A", "MCP1_F", "IP1_F", "MCP2_F", "PIP2_F", "DIP2_F", "MCP3_F", "PIP3_F",
    "DIP3_F", "MCP2-3_A", "MCP4_F", "PIP4_F", "DIP4_F", "MCP3-4_A", "MCP5_F", "PIP5_F", "DIP5_F",
    "MCP4-5_A", "CMC5", "WRIST_F", "WRIST_A",
)  # fmt: skip
IN_18_SENSORS = tuple(i for i, name in enumerate(GLOVE_SENSORS) if not name.startswith("DIP"))
LEFT_OUT = "glove of 22 sensors: the four DIP sensors are left out, to match those of 18"
ASKEW_S = 1.0  # columns of one file may differ by so much in length: they do by a row in some
SYNTHETIC_HEADER = "synthetic, by embridge"  # in the text at the start of such files
RING = 8  # then two rings (DB5), or electrodes on single muscles


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


def read_ninapro(path: Path, options: ReadOptions = AS_USUAL) -> Recording:
    """Read one .mat file; raises RecordingError when it is not a whole NinaPro file."""
    shapes, values, synthetic = _load(path)
    data_set = _data_set(path, shapes)
    stimulus = _labels(path, values, "stimulus")
    repetition = _labels(path, values, "repetition")
    columns = values | {"stimulus": stimulus, "repetition": repetition}
    rows = _common_rows(path, columns, data_set.rate_hz)
    gesture = _gesture_numbers(path, stimulus[:rows], values, data_set)
    repetition = np.where(gesture > 0, repetition[:rows], np.int16(0))
    # exercise D measures finger forces; its glove column means nothing
    pose, valid = _pose(path, values, rows, options, usable="force" not in shapes)
    subject = _number(path, values, "subject", "S")
    emg = values["emg"][:rows].astype(np.float32)
    mirrored = options.mirror_left_arms and wore_left(path, data_set.source, subject)
    remarks = remarks_on(path, data_set.source, subject, mirrored=mirrored)
    if pose is not None and pose.shape[1] < values["glove"].shape[1]:
        remarks += (LEFT_OUT,)
    return Recording(
        name=path.stem,
        source=data_set.source,
        user=f"s{subject}",
        session="1",  # one donning of the electrodes per subject
        rate_hz=data_set.rate_hz,
        emg=mirror_ring(emg, RING) if mirrored else emg,
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
        synthetic=synthetic,
        ring=RING,
        remarks=remarks,
    )


def _load(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, NDArray[Any]], bool]:
    """Shapes of all variables, the values of those read here, and whether it is synthetic."""
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
    synthetic = SYNTHETIC_HEADER.encode() in values["__header__"]
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
    return shapes, values, synthetic


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
    key = f"re{name}" if f"re{name}" in values else name
    labels = values.get(key)
    if labels is None:
        raise RecordingError(
            f"{path.name}: expected variable 're{name}' or '{name}', got neither: use the original "
            "NinaPro file"
        )
    whole = np.isfinite(labels).all() and not (labels % 1).any()
    if min(labels.shape) != 1 or not whole or np.abs(labels).max() > np.iinfo(np.int16).max:
        raise RecordingError(
            f"{path.name}: expected '{key}' as one column of whole numbers, got {labels.dtype} "
            f"{labels.shape}{'' if whole else ' with fractions or NaN'}: use the original NinaPro "
            "file"
        )
    return labels.ravel().astype(np.int16)


def _common_rows(path: Path, columns: dict[str, NDArray[Any]], rate_hz: float) -> int:
    """Length of the shortest column; RecordingError when one lacks more than a few stray rows."""
    used = ("emg", "glove", "stimulus", "repetition")
    lengths = {name: len(columns[name]) for name in used if name in columns}
    key, rows = min(lengths.items(), key=lambda item: item[1])
    longest = max(lengths.values())
    if longest - rows > ASKEW_S * rate_hz:
        raise RecordingError(
            f"{path.name}: expected about {longest} rows in '{key}' as in the other variables, got "
            f"{rows}: download the file again"
        )
    return rows


def _pose(
    path: Path, values: dict[str, NDArray[Any]], rows: int, options: ReadOptions, *, usable: bool
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    """Glove (T, J), 0 in rows that are not finite, and where it is valid."""
    glove = values.get("glove")
    if glove is None:
        return None, np.zeros(rows, bool)
    if glove.shape[1] not in (len(GLOVE_SENSORS), len(IN_18_SENSORS)):
        raise RecordingError(
            f"{path.name}: expected 22 or 18 sensors in 'glove', got {glove.shape[1]}: use the "
            "original NinaPro file"
        )
    glove = glove[:rows]
    if options.glove_sensors == 18 and glove.shape[1] == 22:
        glove = glove[:, IN_18_SENSORS]
    finite = np.isfinite(glove).all(axis=1)
    return np.where(finite[:, None], glove, 0.0).astype(np.float32), finite & usable


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
