"""metadata.csv and split files of a synthetic emg2pose set, as those of the real one.

    metadata.csv      a row per recording; filename is without .hdf5
    full_split.yaml   refers to metadata.csv, as the real file does
    mini_split.yaml   train, val and test -> file names

Rules of the real set: recordings of held-out users or held-out stages are never for training;
`generalization` says what in a recording is new to the model: user, stage, user_stage or none; new
stages of known users are for testing only. Which users and stages are held out is our choice.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from embridge.device.recordings import REST
from embridge.training.run_folder import write_atomic

METADATA = "metadata.csv"
COLUMNS = (
    "filename", "user", "session", "stage", "side", "moving_hand", "held_out_user",
    "held_out_stage", "split", "generalization", "start",
)  # fmt: skip
_FULL_SPLIT = """\
_target_: emg2pose.utils.load_splits
metadata_file: ${data_location}/metadata.csv
subsample: 1
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording of the set."""

    filename: str
    user: str
    session: str
    stage: str


def write_metadata(out: Path, entries: list[Entry], start_s: float) -> None:
    """Write the three files. The last quarter of the users and every third stage are held out."""
    users = list(dict.fromkeys(entry.user for entry in entries))
    stages = [s for s in dict.fromkeys(entry.stage for entry in entries) if s != REST]
    held_users = users[len(users) - max(1, len(users) // 4) :]
    val_users, held_stages = held_users[: len(held_users) // 2], stages[2::3]
    rows = []
    for entry in entries:
        new_user, new_stage = entry.user in held_users, entry.stage in held_stages
        split = "val" if entry.user in val_users else "test" if new_user or new_stage else "train"
        new = "_".join(["user"] * new_user + ["stage"] * new_stage) or "none"
        rows.append(
            {
                "filename": entry.filename, "user": entry.user, "session": entry.session,
                "stage": entry.stage, "side": "left", "moving_hand": "left",
                "held_out_user": new_user, "held_out_stage": new_stage, "split": split,
                "generalization": new, "start": start_s,
            }
        )  # fmt: skip
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(out / METADATA, table.getvalue().encode())
    write_atomic(out / "full_split.yaml", _FULL_SPLIT.encode())
    write_atomic(out / "mini_split.yaml", _mini_split(rows).encode())


def _mini_split(rows: list[dict[str, object]]) -> str:
    """A YAML mapping of the splits to their file names."""
    lines = []
    for split in ("train", "val", "test"):
        names = [row["filename"] for row in rows if row["split"] == split]
        lines += [f"{split}:", *(f"  - {name}" for name in names)] if names else [f"{split}: []"]
    return "\n".join([*lines, ""])
