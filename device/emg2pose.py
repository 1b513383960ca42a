"""emg2pose HDF5 files: one user, session, stage and hand side each (Salter et al., NeurIPS 2024).

    /emg2pose             group; attributes filename session stage user side start end num_channels
                          sample_rate
    /emg2pose/timeseries  (T,) rows of time f8 s, joint_angles f8 (20,) rad, emg f4 (16,) uV

Files written here keep that layout, so that the data set's own tools read them, and add what it has
no place for: columns `gesture` i2, `trial` i4, `repetition` i2, and the attributes in
`_extra_attributes`. Their joint and channel counts are free, and `joint_angles` is left out where
there is no pose, or, as in files of the recorder, all 0 and disowned by the attribute `has_pose`.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import RecordingError
from embridge.device.recordings import Recording

# emg2pose constants.py; the order is that of the joint_angles column. FE flexion-extension, AA
# abduction-adduction.
JOINT_NAMES = (
    "THUMB_CMC_FE", "THUMB_CMC_AA", "THUMB_MCP_FE", "THUMB_IP_FE",
    "INDEX_MCP_AA", "INDEX_MCP_FE", "INDEX_PIP_FE", "INDEX_DIP_FE",
    "MIDDLE_MCP_AA", "MIDDLE_MCP_FE", "MIDDLE_PIP_FE", "MIDDLE_DIP_FE",
    "RING_MCP_AA", "RING_MCP_FE", "RING_PIP_FE", "RING_DIP_FE",
    "PINKY_MCP_AA", "PINKY_MCP_FE", "PINKY_PIP_FE", "PINKY_DIP_FE",
)  # fmt: skip

TABLE: Final = "emg2pose/timeseries"
CHUNK_ROWS: Final = 4096
BLOCK_ROWS: Final = 1 << 16
ZERO_RAD: Final = 1e-8  # numpy's isclose, by which emg2pose tells failed tracking
STORAGE: Final = {"shuffle": True, "compression": "gzip", "compression_opts": 1}

_SIDES = ("_both", "_left", "_right")


def read_emg2pose(path: Path) -> Recording:
    """Read one file; raises RecordingError when it is not a whole emg2pose file."""
    (recording,) = read_blocks(path, None)
    return recording


def read_blocks(path: Path, block_rows: int | None = BLOCK_ROWS) -> Iterator[Recording]:
    """Read one file as recordings of so many consecutive rows each; None: all in one.

    Raises RecordingError when it is not a whole emg2pose file.
    """
    with readable(path), h5py.File(path, "r") as file:
        dataset, attributes = checked_table(path, file)
        before_s = -np.inf
        for first in range(0, len(dataset), block_rows or len(dataset)):
            rows = dataset[first : first + (block_rows or len(dataset))]
            _check_time(path, rows["time"], first, before_s)
            before_s = rows["time"][-1]
            yield _recording(path, rows, attributes)


def checked_table(path: Path, file: h5py.File) -> tuple[Any, dict[str, Any]]:
    """The dataset of rows and the attributes; RecordingError when they are not emg2pose's."""
    if TABLE not in file:
        raise RecordingError(
            f"{path.name}: expected the emg2pose dataset /{TABLE}, got "
            f"{sorted(file) or 'an empty file'}: this is another kind of HDF5 file"
        )
    attributes = {key: _plain(value) for key, value in file["emg2pose"].attrs.items()}
    _check_columns(path, file[TABLE], attributes)
    return file[TABLE], attributes


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what h5py raises on damaged files into RecordingError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RecordingError(
            f"{path.name}: cannot be read as HDF5 (truncated file?): expected an emg2pose "
            f"recording, got '{reason}': download or record it again"
        ) from error


def write_emg2pose(
    path: Path,
    recording: Recording,
    *,
    side: str = "left",
    start_s: float = 0.0,
    compress: bool = True,
) -> None:
    """Write `recording` to `path` in one step: readers see the old file, or the whole new one.

    start_s: unix time of the first sample; compress: several times smaller, slower to read in
    pieces. Rows without valid pose get all angles 0, emg2pose's mark of failed tracking. Raises
    OSError when the folder cannot be written.
    """
    rows = _rows(recording, start_s)
    end_s = start_s + len(rows) / recording.rate_hz
    stage = recording.gestures[0] if len(recording.gestures) == 1 else "unconstrained"
    attributes = {
        "filename": path.stem, "session": recording.session, "stage": stage,
        "user": recording.user, "side": side, "start": start_s, "end": end_s,
        "num_channels": recording.emg.shape[1], "sample_rate": float(recording.rate_hz),
    } | _extra_attributes(recording)  # fmt: skip
    partial = path.with_name(f".{path.name}.partial")
    try:
        with h5py.File(partial, "w") as file:
            group = file.create_group("emg2pose")
            group.attrs.update(attributes)
            chunks = {"chunks": (min(len(rows), CHUNK_ROWS),), **STORAGE} if compress else {}
            group.create_dataset("timeseries", data=rows, **chunks)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _extra_attributes(recording: Recording) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "gestures": json.dumps(recording.gestures),
        "emg_unit": recording.emg_unit,
        "is_envelope": recording.is_envelope,
        "pose_unit": recording.pose_unit,
        "synthetic": recording.synthetic,
        "source": recording.source,
    }
    if recording.emg_unit_per_count is not None:
        extra["emg_unit_per_count"] = recording.emg_unit_per_count
    return extra


def _rows(recording: Recording, start_s: float) -> NDArray[np.void]:
    samples, channels = recording.emg.shape
    pose = recording.pose
    columns: list[Any] = [("time", "<f8")]
    if pose is not None:
        columns.append(("joint_angles", "<f8", (pose.shape[1],)))
    columns += [
        ("emg", "<f4", (channels,)), ("gesture", "<i2"), ("trial", "<i4"), ("repetition", "<i2"),
    ]  # fmt: skip
    if recording.sample_index is not None:
        columns.append(("sample_index", "<i8"))
    rows = np.zeros(samples, np.dtype(columns))
    index = np.arange(samples) if recording.sample_index is None else recording.sample_index
    rows["time"] = start_s + (index - index[:1]) / recording.rate_hz
    if pose is not None:
        rows["joint_angles"] = np.where(recording.pose_valid[:, None], pose, 0.0)
    for column in ("emg", "gesture", "trial", "repetition"):
        rows[column] = getattr(recording, column)
    if recording.sample_index is not None:
        rows["sample_index"] = index
    return rows


def stage_name(stage: str) -> str:
    """A stage as the data set lists it, without the hands it was done with."""
    for side in _SIDES:
        stage = stage.removesuffix(side)
    return stage


def _plain(value: Any) -> Any:
    """HDF5 attribute -> Python str, bool, int or float."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _check_columns(path: Path, dataset: Any, attributes: dict[str, Any]) -> None:
    """Raise RecordingError unless columns and attributes are those of an emg2pose file."""
    fields = dataset.dtype.fields or {}
    missing = [name for name in ("time", "emg") if name not in fields]
    missing += [name for name in ("sample_rate", "user", "stage") if name not in attributes]
    if missing or dataset.ndim != 1 or len(dataset) == 0:
        raise RecordingError(
            f"{path.name}: expected rows of time, joint_angles and emg with attributes sample_rate,"
            f" user and stage, got {dataset.shape} rows lacking {missing or 'nothing'}: record it "
            "again"
        )
    widths = {
        name: fields[name][0].shape for name in ("emg", "joint_angles") if name in fields
    }  # each (n,)
    channels = attributes.get("num_channels", widths["emg"][0] if widths["emg"] else 0)
    if widths["emg"] != (channels,):
        raise RecordingError(
            f"{path.name}: expected num_channels = {channels} columns of emg, got {widths['emg']}: "
            "the file was changed after recording"
        )
    joints = widths.get("joint_angles", (len(JOINT_NAMES),))
    if len(joints) != 1 or ("pose_unit" not in attributes and joints != (len(JOINT_NAMES),)):
        raise RecordingError(
            f"{path.name}: expected {len(JOINT_NAMES)} joint angles, got {joints}: download the "
            "file again"
        )
    if not attributes["sample_rate"] > 0:
        raise RecordingError(
            f"{path.name}: expected a sample_rate above 0 Hz, got {attributes['sample_rate']}: "
            "the file was changed after recording"
        )


def _recording(path: Path, rows: NDArray[np.void], attributes: dict[str, Any]) -> Recording:
    names = rows.dtype.names or ()
    pose, valid = _pose(rows, bool(attributes.get("has_pose", True)))
    stage = stage_name(attributes["stage"])
    ours = "gesture" in names
    ones = np.ones(len(rows), np.int32)
    return Recording(
        name=path.stem,
        source=attributes.get("source", "emg2pose"),
        user=str(attributes["user"]),
        session=str(attributes.get("session", path.stem)),
        rate_hz=float(attributes["sample_rate"]),
        emg=rows["emg"].astype(np.float32),
        emg_unit=attributes.get("emg_unit", "uV"),
        is_envelope=attributes.get("is_envelope", False),
        pose=pose,
        pose_unit=attributes.get("pose_unit", "rad"),
        pose_valid=valid,
        gestures=_gestures(path, attributes, rows) if ours else (stage,),
        gesture=rows["gesture"] if ours else np.zeros(len(rows), np.int16),
        trial=rows["trial"] if "trial" in names else ones,
        repetition=rows["repetition"] if "repetition" in names else ones.astype(np.int16),
        emg_unit_per_count=attributes.get("emg_unit_per_count"),
        synthetic=attributes.get("synthetic", False),
        measured_rate_hz=_measured_rate_hz(rows["time"]),
        sample_index=rows["sample_index"] if "sample_index" in names else None,
    )


def _pose(
    rows: NDArray[np.void], has_pose: bool
) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    """Angles (T, J) and where they are valid; a row of all 0 is failed inverse kinematics."""
    if not has_pose or "joint_angles" not in (rows.dtype.names or ()):
        return None, np.zeros(len(rows), bool)
    return angles_of(rows["joint_angles"])


def angles_of(
    joint_angles: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The column (T, J) as angles, 0 where they are not valid, and (T,) where they are."""
    valid = np.isfinite(joint_angles).all(axis=1) & (np.abs(joint_angles) > ZERO_RAD).any(axis=1)
    return np.where(valid[:, None], joint_angles, 0.0).astype(np.float32), valid


def _gestures(path: Path, attributes: dict[str, Any], rows: NDArray[np.void]) -> tuple[str, ...]:
    """Names of the gesture column's numbers."""
    try:
        gestures = tuple(str(name) for name in json.loads(attributes["gestures"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(
            f"{path.name}: expected a JSON list of names in attribute 'gestures', got "
            f"{attributes.get('gestures')!r}: the file was changed after recording"
        ) from error
    low, high = rows["gesture"].min(), rows["gesture"].max()
    if low < -1 or high >= len(gestures):
        raise RecordingError(
            f"{path.name}: expected gesture numbers -1..{len(gestures) - 1}, got {low}..{high}: "
            "the file was changed after recording"
        )
    return gestures


def _check_time(path: Path, time_s: NDArray[np.float64], first_row: int, before_s: float) -> None:
    """Raise RecordingError where time runs backwards; before_s: of the row before `first_row`."""
    steps = np.diff(time_s, prepend=before_s)
    if not (steps >= 0).all():
        row = int(np.argmin(steps >= 0))
        raise RecordingError(
            f"{path.name}: expected time that never decreases, got "
            f"{time_s[row - 1] if row else before_s} s then {time_s[row]} s at row "
            f"{first_row + row}: download or record it again"
        )


def _measured_rate_hz(time_s: NDArray[np.float64]) -> float | None:
    """Rate by the time stamps."""
    span_s = float(time_s[-1] - time_s[0])
    return (len(time_s) - 1) / span_s if span_s > 0 else None
