"""What is wrong with some real NinaPro files, planted into a sound one."""

from collections.abc import Callable
from typing import Any

import numpy as np

from embridge.device.ninapro import IN_18_SENSORS

Values = dict[str, Any]

TRUNCATED = "truncated"


def spoil(values: Values, defect: str) -> None:
    """Plant a defect of `DEFECTS` into a file's variables, in place; "" leaves them sound."""
    if defect and defect != TRUNCATED:
        _CHANGES[defect](values)


def truncated(data: bytes, defect: str) -> bytes:
    """The bytes of a file whose download stopped, where `defect` says so."""
    return data[: len(data) * 6 // 10] if defect == TRUNCATED else data


def _without(name: str) -> Callable[[Values], None]:
    return lambda values: values.pop(name)


def _changed(name: str, change: Callable[[Any], Any]) -> Callable[[Values], None]:
    return lambda values: values.__setitem__(name, change(values[name]))


def _labels_cut(rows: slice) -> Callable[[Values], None]:
    def cut(values: Values) -> None:
        for name in ("restimulus", "rerepetition"):
            values[name] = values[name][rows]

    return cut


def _nan_rows(array: Any) -> Any:
    array = array.copy()
    array[len(array) // 3 : len(array) // 2, 4] = np.nan
    return array


def _emg_cut(values: Values) -> None:
    values["emg"] = values["emg"][:-1]


_CHANGES: dict[str, Callable[[Values], None]] = {
    "emg-row-longer": _labels_cut(slice(None, -1)),  # DB2 exercise 3 of subject 1
    "emg-row-shorter": _emg_cut,
    "half-labels": lambda values: _labels_cut(slice(None, len(values["emg"]) // 2))(values),
    "missing-emg": _without("emg"),
    "missing-glove": _without("glove"),
    "glove-18": _changed("glove", lambda glove: glove[:, IN_18_SENSORS]),  # some of DB7
    "nan-glove": _changed("glove", _nan_rows),
    "nan-emg": _changed("emg", _nan_rows),
    "single-emg": _changed("emg", lambda emg: emg.astype(np.float32)),
    "text-emg": _changed("emg", lambda emg: np.array(["not numbers"], object)),
    "nan-labels": _changed("restimulus", lambda column: np.full(column.shape, np.nan)),
    "two-label-columns": _changed("restimulus", lambda column: np.hstack([column, column])),
}
DEFECTS = (*_CHANGES, TRUNCATED)
