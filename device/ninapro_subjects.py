"""What the files do not say of NinaPro's subjects: who was left-handed, and who is an amputee.

Ring electrodes of DB2 and DB7 are equally spaced around the arm in one sense of rotation. A left
arm is the mirror image of a right one, so on it the same sense meets the muscles in reverse order
[DB2: a third party's processing script names the subjects; DB7: table on its page]. Our choice:
keep the first electrode, reverse the other seven, leave the electrodes on single muscles alone.

Subjects are known by number only within a set, and DB3 (amputees) has the keys and shapes of DB2.
The file name tells them apart: S4_E1_A1 in DB2 and DB7, S4_A1_E1 in DB1 and DB3.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LEFT_HANDED = {
    "ninapro-db2": frozenset({4, 13, 22, 25, 26}),
    "ninapro-db7": frozenset({1, 4, 5, 14}),
}
AMPUTEES = {"ninapro-db7": frozenset({21, 22})}

MIRRORED = "left-handed: ring of electrodes reversed, to lie over the muscles as on a right arm"
NOT_MIRRORED = "left-handed: ring of electrodes as recorded, reversed to that of a right arm"
AMPUTEE = "amputee: the glove was on the other hand (not verified), its pose is not the arm's own"

_EXERCISE_FIRST = re.compile(r"S\d+_E\d+_A\d+", re.IGNORECASE)


def wore_left(path: Path, source: str, subject: int) -> bool:
    """Whether the electrodes were on a left arm, as far as it is known."""
    return subject in LEFT_HANDED.get(source, ()) and bool(_EXERCISE_FIRST.fullmatch(path.stem))


def mirror_ring(emg: NDArray[np.float32], ring: int) -> NDArray[np.float32]:
    """Reverse channels 1 .. ring-1 of (T, C); doing it twice gives back what was."""
    order = np.arange(emg.shape[1])
    order[1:ring] = order[1:ring][::-1]
    return emg[:, order]


def remarks_on(path: Path, source: str, subject: int, *, mirrored: bool) -> tuple[str, ...]:
    """What results with this subject depend on."""
    remarks = []
    if wore_left(path, source, subject):
        remarks.append(MIRRORED if mirrored else NOT_MIRRORED)
    if subject in AMPUTEES.get(source, ()):
        remarks.append(AMPUTEE)
    return tuple(remarks)
