"""The zero-shot referee: what a method gets to see, on generated users of the NinaPro DB1 kind."""

from dataclasses import replace

import numpy as np
import pytest

from embridge.device.errors import ConfigError
from embridge.training.table.data import users_of
from embridge.training.table.entries import Entry, baselines
from embridge.training.table.lda import HudginsLda
from embridge.training.table.protocol import Adapted, Tier
from embridge.training.table.referee import judge, training_set, user_data
from embridge.training.table.ridge import GloveItself, RidgeToPose
from embridge.training.table.splits import ALL, CALIBRATION, held_out, rotations
from embridge.training.table.tables import run_table

SENSORS, CHANNELS, REPETITIONS = 8, 10, 5  # of the generated users
MARK = 1000.0  # on channel 0 of an unseen gesture's EMG, in the marked users


class Spy:
    """Looks at all it is given; answers at random, or as `answer` says."""

    def __init__(self, tier=Tier.T0, answer=None):
        self.tier, self.answer, self.user_data = tier, answer, []

    def fit(self, training):
        self.training = training

    def embed_pose(self, pose):
        return pose.mean(axis=2)

    def adapt(self, user):
        self.user_data.append(user)
        return Adapted(self.answer or self._random)

    def _random(self, emg):
        return np.stack([self._of(window) for window in emg])

    def _of(self, window):
        return np.random.default_rng(int.from_bytes(window.tobytes()[:8])).standard_normal(SENSORS)


def first(users, fold=0):
    return rotations([user.user for user in users])[fold], {user.user: user for user in users}


def test_windows_lie_inside_runs_and_start_with_them(db1, users):
    recording = db1(1)
    lengths = np.bincount(recording.trial)[1:]
    assert len(users[0]) == sum((lengths - 50) // 10 + 1)
    assert users[0].emg.shape[1:] == (CHANNELS, 50)
    assert users[0].pose.shape[1:] == (SENSORS, 50)
    at = int(np.flatnonzero(recording.trial == 3)[0])
    third = users[0].emg[users[0].run == 3]
    assert np.array_equal(third[1], recording.emg[at + 10 : at + 60].T)


def test_the_glove_is_standardised_per_user_and_sensor(users):
    for user in users:
        means = user.pose.mean(axis=2, dtype=np.float64)
        assert means.mean(axis=0) == pytest.approx(np.zeros(SENSORS), abs=1e-4)
        assert means.std(axis=0) == pytest.approx(np.ones(SENSORS), abs=1e-4)


def test_no_emg_of_an_unseen_gesture_reaches_fit(db1):
    unseen = (1, 4, 7, 10)
    marked = users_of(db1(number, marked=unseen) for number in range(1, 7))
    split, by_name = first(marked)
    spy = Spy(Tier.T3)
    judge(spy, split, by_name, 0)
    assert spy.training.emg.max() < MARK  # the mark of an unseen gesture's EMG is nowhere
    assert all(data.emg.max() < MARK for data in spy.user_data)
    assert not set(spy.training.label) & set(unseen)
    assert set(spy.training.gallery.label) == set(ALL)  # their poses are
    assert not {name for name in spy.training.users} & set(split.test)


def test_nothing_handed_out_leads_back_to_the_recordings(users):
    split, by_name = first(users)
    training = training_set(split, by_name)
    given = [getattr(training, n) for n in ("emg", "pose", "label", "repetition", "run", "user")]
    given += [training.gallery.pose, training.gallery.label, training.gallery.user]
    data = user_data(by_name["s1"], split.seen, Tier.T3, 0)
    given += [data.emg, data.run, data.label, data.pose]
    for array in given:
        assert array.base is None
        assert not array.flags.writeable
        assert not any(np.shares_memory(array, user.emg) for user in users)


@pytest.mark.parametrize(
    ("tier", "has"),
    [
        (Tier.T0, ()),
        (Tier.POSE, ()),
        (Tier.T1, ("emg", "run")),
        (Tier.T2, ("emg", "run", "label")),
        (Tier.T3, ("emg", "run", "label", "pose")),
    ],
)
def test_a_tier_gives_of_a_user_what_its_name_allows(users, tier, has):
    split, by_name = first(users)
    data = user_data(by_name["s1"], split.seen, tier, 0)
    assert tuple(n for n in ("emg", "run", "label", "pose") if getattr(data, n) is not None) == has


def test_calibration_is_of_seen_gestures_and_three_repetitions_in_random_order(users):
    split, by_name = first(users)
    person = by_name["s1"]
    data = user_data(person, split.seen, Tier.T2, 0)
    wanted = np.isin(person.label, split.seen) & np.isin(person.repetition, CALIBRATION)
    assert len(data.emg) == wanted.sum()
    assert {w.tobytes() for w in data.emg} == {w.tobytes() for w in person.emg[wanted]}
    changes = np.flatnonzero(np.diff(data.run))
    assert len(changes) == len(split.seen) * len(CALIBRATION) - 1  # runs stay whole
    assert (np.diff(data.label) < 0).any()  # but gestures do not come in NinaPro's order


def test_a_method_that_uses_statistics_of_the_test_is_refused(users):
    split, by_name = first(users)

    def centred(emg):
        poses = emg.mean(axis=2)[:, :SENSORS]
        return poses - poses.mean(axis=0)

    with pytest.raises(ConfigError, match="Spy: a test window alone and among others"):
        judge(Spy(answer=centred), split, by_name, 0)


def test_embeddings_that_are_not_finite_are_refused(users):
    split, by_name = first(users)
    with pytest.raises(ConfigError, match="not finite"):
        judge(Spy(answer=lambda emg: np.full((len(emg), SENSORS), np.nan)), split, by_name, 0)


def test_a_method_cannot_change_what_it_was_given(users):
    split, by_name = first(users)

    def scribble(emg):
        emg[:] = 0
        return emg.mean(axis=2)[:, :SENSORS]

    with pytest.raises(ValueError, match="read-only"):
        judge(Spy(answer=scribble), split, by_name, 0)


class Blind(Spy):
    """Sees no pose but through what it is told of a user."""

    def embed_pose(self, pose):
        return np.ones((len(pose), SENSORS))

    def adapt(self, user):
        return replace(super().adapt(user), embed_pose=super().embed_pose)


def test_the_users_own_map_of_poses_takes_the_place_of_the_methods(users):
    split, by_name = first(users)
    told, spy = (judge(kind(Tier.T1), split, by_name, 0) for kind in (Blind, Spy))
    assert all(np.array_equal(told[name], spy[name]) for name in split.test)


def test_random_embeddings_are_at_chance(users):
    entry = Entry("random", lambda seed: Spy(Tier.T1))
    table = run_table(users, [entry], data="generated", clock=lambda: 0.0)
    result = table.results[0]
    assert result.unseen().mean == pytest.approx(0.25, abs=0.03)
    assert result.seen().mean == pytest.approx(0.125, abs=0.03)
    assert result.generalised()["unseen"].mean == pytest.approx(1 / 12, abs=0.03)


def test_ridge_infers_unseen_gestures_where_emg_is_linear_in_pose(users):
    split, by_name = first(users)
    counts = judge(RidgeToPose(Tier.T1), split, by_name, 0)
    unseen = sum(counts.values())[0, 0, 0]  # class means, windows
    assert np.trace(unseen) / unseen.sum() > 0.6


def test_seen_gestures_are_tested_outside_the_calibration_repetitions(users):
    split, by_name = first(users)
    counts = judge(GloveItself(), split, by_name, 0)["s1"]
    person = by_name["s1"]
    seen = np.isin(person.label, split.seen)
    assert counts[1, 0, 0].sum() == (seen & ~np.isin(person.repetition, CALIBRATION)).sum()
    assert counts[0, 0, 0].sum() == (~seen).sum()
    assert counts[1, 0, 1].sum() == len(split.seen) * (REPETITIONS - len(CALIBRATION))


def test_labels_of_seen_gestures_give_a_classifier_of_seen_gestures_only(users):
    split, by_name = first(users)
    counts = sum(judge(HudginsLda(Tier.T1), split, by_name, 0).values())
    assert counts.shape[:2] == (1, 1)
    decided = np.flatnonzero(counts[0, 0, 0].sum(axis=0)) + 1
    assert set(decided) <= set(split.seen)
    assert np.trace(counts[0, 0, 0]) / counts[0, 0, 0].sum() > 0.8


def test_the_table_has_every_tier_and_says_what_it_was_run_on(users):
    seen = []
    table = run_table(
        users[:3],
        baselines(seeds=(0,)),
        data="generated",
        clock=lambda: 0.0,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert "Run on generated: ninapro-db1, exercise 1, 3 test users" in table.text()
    rows = table.json()["rows"]
    assert {row["tier"] for row in rows} == {"T0", "T1", "T2", "T3", "pose"}
    assert [done for done, _ in seen] == list(range(1, 9 * len(rows) + 1))
    first_row = rows[0]["generalised"]["class_means"]
    assert first_row["windows"]["harmonic_mean"]["mean"] <= first_row["windows"]["seen"]["mean"]
    assert len(first_row["confusion"]["1-4-7-10"]) == 12
    assert table.markdown().count("\n|") == len(rows) + 2


def test_the_same_seeds_give_the_same_table_and_gains_are_over_the_reference(users):
    entries = [
        Entry("ridge", lambda _: RidgeToPose(Tier.T1), reference=True),
        Entry("features", lambda seed: RidgeToPose(Tier.T1, "reflection", 50, seed=seed), (3, 4)),
    ]
    one, two = (
        run_table(users[:3], entries, data="generated", clock=lambda: 0.0) for _ in range(2)
    )
    assert one.json() == two.json()
    assert one.results[1].counts.shape[0] == 2  # seeds
    reference, gain = one.gains
    assert reference is None
    assert gain.mean == pytest.approx(one.results[1].unseen().mean - one.results[0].unseen().mean)


def test_other_users_can_be_tested_after_training_on_all(users):
    entry = baselines((0,))[1]
    table = run_table(users[:4], [entry], data="generated", clock=lambda: 0.0, test_users=users[4:])
    assert table.results[0].users == ("s5", "s6")
    with pytest.raises(ConfigError, match="s2 in both"):
        held_out(["s1", "s2"], ["s2"])


def test_data_of_another_kind_is_refused_in_one_line(db1, users):
    with pytest.raises(ConfigError, match="defined on ninapro-db1, exercise 1, got ninapro-db5"):
        users_of([replace(db1(1), source="ninapro-db5")])
    rest = replace(db1(1), gesture=np.zeros_like(db1(1).gesture))
    with pytest.raises(ConfigError, match="found none"):
        users_of([rest])
    with pytest.raises(ConfigError, match="at least 3 users"):
        rotations(["s1", "s2"])
    split, by_name = first(users)
    short = {n: _without(u, 4) if n in split.train else u for n, u in by_name.items()}
    with pytest.raises(ConfigError, match="no training user made gesture 4"):
        training_set(split, short)
    with pytest.raises(ConfigError, match="tier T1 needs repetitions"):
        user_data(_without(by_name["s1"], *split.seen), split.seen, Tier.T1, 0)


def _without(user, *gestures):
    keep = ~np.isin(user.label, gestures)
    columns = {n: getattr(user, n)[keep] for n in ("emg", "pose", "label", "repetition", "run")}
    return replace(user, **columns)
