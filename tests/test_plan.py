"""The rules by which users and gestures are held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, load_config
from embridge.training.plan import choose_unseen, split_users

DATA = load_config(PRESETS / "raw.toml").data


@given(
    users=st.integers(0, 40),
    val_users=st.integers(1, 5),
    test_users=st.integers(0, 10),
)
def test_every_user_is_in_exactly_one_part_or_there_are_too_few(
    users: int, val_users: int, test_users: int
) -> None:
    data = DATA.model_copy(update={"val_users": val_users, "test_users": test_users})
    names = [f"u{i}" for i in range(users)]
    if users <= val_users + max(1, test_users or users // 3):
        with pytest.raises(ConfigError, match=f"^expected at least .*; got {users}: add"):
            split_users(data, names)
        return
    parts = split_users(data, names)
    assert [name for part in parts for name in part] == names
    assert len(parts[0]) >= 1
    assert len(parts[1]) == val_users
    assert len(parts[2]) == (test_users or max(1, users // 3))


@given(count=st.integers(4, 60), wanted=st.integers(2, 30))
def test_unseen_gestures_are_spread_and_leave_half_to_train_on(count: int, wanted: int) -> None:
    gestures = [f"g{i}" for i in range(count)]
    data = DATA.model_copy(update={"unseen_gestures": (), "unseen_count": wanted})
    unseen = choose_unseen(data, gestures)
    assert len(unseen) == min(wanted, count // 2)
    steps = np.diff([gestures.index(gesture) for gesture in unseen])
    assert steps.max() - steps.min() <= 1


def test_named_unseen_gestures_are_taken_in_the_order_of_the_recordings() -> None:
    assert choose_unseen(
        DATA.model_copy(update={"unseen_gestures": ("pinch", "horns")}), ["horns", "fist", "pinch"]
    ) == ("horns", "pinch")


@pytest.mark.parametrize(
    ("unseen", "gestures", "match"),
    [
        ((), ["a", "b", "c"], "expected at least 4 gestures"),
        ((), [], "expected at least 4 gestures"),
        (("a", "z"), ["a", "b"], "z not in the recordings; they hold a, b"),
        (("a", "b"), ["a", "b"], "all gestures are named"),
    ],
)
def test_unseen_gestures_that_cannot_be_left_out_are_refused_in_one_line(
    unseen: tuple[str, ...], gestures: list[str], match: str
) -> None:
    data = DATA.model_copy(update={"unseen_gestures": unseen})
    with pytest.raises(ConfigError, match=match) as error:
        choose_unseen(data, gestures)
    assert "\n" not in str(error.value)


def test_three_rotations_test_every_user_once_and_never_train_on_them() -> None:
    names = [f"s{n}" for n in range(1, 12)]
    tested = []
    for rotation in range(3):
        train, val, test = split_users(DATA.model_copy(update={"user_rotation": rotation}), names)
        assert sorted([*train, *val, *test]) == sorted(names)
        tested += test
    assert sorted(tested) == sorted(names)
