"""emg2pose's own splits by file: metadata.csv beside the recordings, or a split YAML.

metadata.csv: columns filename user stage split, held_out_stage and generalization where a file of
the test or of the validation says what is new about it. A split YAML maps train, val and test to
names of files, or (`_target_`) names the metadata.csv to take them from.
"""

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from embridge.device.emg2pose import stage_name
from embridge.device.errors import ConfigError, RecordingError
from embridge.device.outline import Outline
from embridge.training.config import DataConfig
from embridge.training.plan import FileSplit

METADATA = "metadata.csv"
SPLITS: tuple[str, ...] = get_args(FileSplit.model_fields["split"].annotation)
_NEEDED = ("filename", "user", "stage", "split")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Files by name, without suffix, and what metadata says of them.

    users, stages: of each file, where metadata.csv was read; unseen: the held-out stages
    """

    source: str
    files: dict[str, FileSplit]
    users: dict[str, str] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()

    def described(self, outline: Outline) -> Outline:
        """The recording by the user and the stage that metadata names."""
        head, name = outline.head, outline.name
        user = self.users.get(name, head.user)
        stage = self.stages.get(name)
        gestures = (stage,) if stage and len(head.gestures) == 1 else head.gestures
        return replace(outline, head=replace(head, user=user, gestures=gestures))


def read_split(data: DataConfig, folder: Path) -> Split | None:
    """The split that `data.split` names; None where whole users are held out.

    folder: of the recordings. Raises ConfigError when the split cannot be read.
    """
    if data.split == "users":
        return None
    if data.split == "official":
        return _from_metadata(folder / METADATA)
    path = Path(data.split).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            f"data.split={data.split!r}: expected users, official or a split file (.yaml)"
        )
    return _from_yaml(path, folder)


def require_files(split: Split, present: set[str], folder: Path, allow_missing: bool) -> None:
    """Raise RecordingError for files of the split that are not there; logged when allowed."""
    missing = [name for name in split.files if name not in present]
    if not missing:
        return
    found = (
        f"{folder}: {len(missing)} of the {len(split.files)} files in {split.source} are missing, "
        f"first {missing[0]}"
    )
    if len(missing) == len(split.files):
        raise RecordingError(f"{found}: this is another data set; check data.path and data.split")
    if not allow_missing:
        raise RecordingError(f"{found}: download them, or set data.allow_missing=true")
    log.warning("%s; going on without them", found)


def _from_metadata(path: Path) -> Split:
    rows = _rows(path)
    files, users, stages, unseen = {}, {}, {}, set()
    for line, row in enumerate(rows, start=2):
        name, stage = row["filename"].removesuffix(".hdf5"), stage_name(row["stage"])
        files[name] = _file_split(f"{path.name}: line {line}", row["split"], _group(row))
        users[name], stages[name] = row["user"], stage
        if row.get("held_out_stage", "").strip().lower() in ("true", "1"):
            unseen.add(stage)
    if not files:
        raise ConfigError(f"{path}: expected one row per file, got none; download it again")
    return Split(path.name, files, users, stages, frozenset(unseen))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True, restval="")
            rows = list(reader)
            columns = reader.fieldnames or []
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: not found; put emg2pose's {METADATA} there, or set data.split=users"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV ({error}); download it again") from error
    if missing := [name for name in _NEEDED if name not in columns]:
        raise ConfigError(
            f"{path}: expected columns {', '.join(_NEEDED)}, missing {', '.join(missing)}; "
            "download it again"
        )
    return rows


def _group(row: Mapping[str, str]) -> str:
    group = row.get("generalization", "").strip().lower()
    return "" if group in ("none", "nan") else group


def _file_split(where: str, split: str, group: str = "") -> FileSplit:
    try:
        return FileSplit.model_validate({"split": split, "group": group})
    except ValidationError as error:
        raise ConfigError(
            f"{where}: split {split!r}: expected {', '.join(SPLITS)}; download it again"
        ) from error


def _from_yaml(path: Path, folder: Path) -> Split:
    import yaml  # type: ignore[import-untyped]

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read as YAML ({reason}); check data.split") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of {', '.join(SPLITS)} to files")
    if "_target_" in tree:
        return _from_metadata(_metadata_file(path, tree, folder))
    files: dict[str, FileSplit] = {}
    for split, names in tree.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path}: {split}: expected a list of file names, got {names!r:.60}")
        for name in (name.removesuffix(".hdf5") for name in names):
            if name in files:
                raise ConfigError(f"{path}: {name} stands under {files[name].split} and {split}")
            files[name] = _file_split(path.name, split)
    if not files:
        raise ConfigError(f"{path}: expected files under {', '.join(SPLITS)}, got none")
    return Split(path.name, files)


def _metadata_file(path: Path, tree: Mapping[str, Any], folder: Path) -> Path:
    target, file = tree["_target_"], tree.get("metadata_file")
    if not str(target).endswith("load_splits") or not isinstance(file, str):
        raise ConfigError(
            f"{path}: expected _target_ emg2pose.utils.load_splits with a metadata_file, got "
            f"{target} with {file}"
        )
    if tree.get("subsample", 1) != 1:
        raise ConfigError(
            f"{path}: subsample {tree['subsample']}: only 1 is read, since which files a smaller "
            "one draws is emg2pose's own; list the files under train, val and test instead"
        )
    return Path(file.replace("${data_location}", str(folder)))
