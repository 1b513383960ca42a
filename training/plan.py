"""Who is held out, which gestures are unseen, how windows are cut: decided once, then stored."""

from collections.abc import Iterable
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from embridge.device.errors import ConfigError
from embridge.device.frontend import FrontEnd
from embridge.device.recordings import REST, Recording
from embridge.training.config import DataConfig


class FileSplit(BaseModel):
    """What the official split of a data set says of one file.

    group: what is new about a test file: "user", "stage" or "user_stage"; "" where it is not said
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["train", "val", "test"]
    group: str = ""


class Geometry(Protocol):
    """What of a plan fixes the shape of encoders: C, J, T in samples, rate."""

    @property
    def channels(self) -> int:
        """C."""
        ...

    @property
    def joints(self) -> int:
        """J."""
        ...

    @property
    def window(self) -> int:
        """T, in samples."""
        ...

    @property
    def rate_hz(self) -> float:
        """Samples in a second."""
        ...


class StudyPlan(BaseModel):
    """Who and what is held out, and how windows are cut; stored with every run and package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_name: str
    synthetic: bool
    source: str
    rate_hz: float
    channels: int
    joints: int
    unit: str
    is_envelope: bool
    ring: int
    window: int
    hop: int
    train_hop: int
    labels: tuple[str, ...]
    unseen: tuple[str, ...]
    train_users: tuple[str, ...]
    val_users: tuple[str, ...]
    test_users: tuple[str, ...]
    pose_scaling: str
    pose_offset: tuple[float, ...]  # (J,) of the training users, for "global" scaling
    pose_scale: tuple[float, ...]
    front_end: FrontEnd
    files: dict[str, FileSplit] = {}  # by the files' names; empty: whole users are held out
    share: float = 1.0  # of the training windows, drawn by `share_seed`
    share_seed: int = 0

    @property
    def seen(self) -> list[str]:
        """Gestures training may use, without rest."""
        return [g for g in self.labels if g not in self.unseen and g != REST]

    @property
    def strangers(self) -> tuple[str, ...]:
        """Test users of whom nothing at all was trained or validated on.

        Not all are: an official split also tests training users, on gestures held out.
        """
        known = {*self.train_users, *self.val_users}
        return tuple(user for user in self.test_users if user not in known)

    def split_of(self, name: str, user: str) -> tuple[str, str]:
        """Split and test group of a recording, by its file or else by its user; "" for none."""
        if self.files:
            of_file = self.files.get(name)
            return (of_file.split, of_file.group) if of_file else ("", "")
        members = {"train": self.train_users, "val": self.val_users, "test": self.test_users}
        return next((split for split, users in members.items() if user in users), ""), ""

    def numbers(self, gestures: Iterable[str]) -> list[int]:
        """Label numbers of gestures."""
        return [self.labels.index(gesture) for gesture in gestures]


def samples(duration_ms: float, rate_hz: float) -> int:
    """Whole samples of a duration, at least one."""
    return max(1, round(duration_ms * rate_hz / 1000))


def split_users(
    data: DataConfig, users: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Training, validation and test users, in natural order.

    The last ones are for the test, or every third one in a rotation: the three of them together
    test everybody once.
    """
    test_count = data.test_users or max(1, len(users) // 3)
    if data.user_rotation is not None:
        tested = users[data.user_rotation :: 3]
        users = [*(user for user in users if user not in tested), *tested]
        test_count = len(tested)
    train_count = len(users) - data.val_users - test_count
    if train_count < 1:
        raise ConfigError(
            f"expected at least {1 + data.val_users + test_count} users to train on one, validate "
            f"on {data.val_users} and test on {test_count}; got {len(users)}: add recordings"
        )
    cut = train_count + data.val_users
    return tuple(users[:train_count]), tuple(users[train_count:cut]), tuple(users[cut:])


def choose_unseen(data: DataConfig, gestures: list[str]) -> tuple[str, ...]:
    """The gestures to leave out: those named, or `unseen_count` spread evenly over the list."""
    if data.unseen_gestures:
        if unknown := [g for g in data.unseen_gestures if g not in gestures]:
            raise ConfigError(
                f"data.unseen_gestures: {', '.join(unknown)} not in the recordings; "
                f"they hold {', '.join(gestures)}"
            )
        if not set(gestures) - set(data.unseen_gestures):
            raise ConfigError("data.unseen_gestures: all gestures are named, leave one to train on")
        return tuple(g for g in gestures if g in data.unseen_gestures)
    count = min(data.unseen_count, len(gestures) // 2)
    if count < 2:
        raise ConfigError(
            f"expected at least 4 gestures, so that 2 can be left out; got {len(gestures)}"
        )
    return tuple(gestures[int((i + 0.5) * len(gestures) / count)] for i in range(count))


def choose_pose_scaling(data: DataConfig, recording: Recording) -> str:
    """Angles in radians mean the same for everybody; raw glove values do not."""
    if data.pose_scaling != "auto":
        return data.pose_scaling
    return "global" if recording.pose_unit == "rad" else "user"
