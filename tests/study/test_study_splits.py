"""Who is held out, and what a study refuses."""

import dataclasses

import pytest

from embridge.device.errors import ConfigError, RecordingError
from embridge.training.study import apply_plan, make_study, read_all


def test_users_are_split_in_natural_order_and_disjointly(study):
    plan = study.plan
    assert (plan.train_users, plan.val_users) == (("s1", "s2", "s10"), ("s11",))
    assert plan.test_users == ("s12", "s20")


def test_too_few_users_are_refused_in_one_line(handmade, recordings):
    with pytest.raises(ConfigError, match="expected at least 3 users") as error:
        make_study(handmade.configured(), recordings[:2], "two")
    assert "\n" not in str(error.value)


def test_rest_is_neither_seen_nor_unseen_and_comes_first(handmade, study):
    assert study.plan.labels == handmade.GESTURES
    assert study.plan.seen == ["fist", "point", "thumb", "spread"]
    assert study.plan.unseen == handmade.UNSEEN


def test_windows_longer_than_any_stretch_are_refused_in_one_line(handmade, recordings):
    study = make_study(handmade.configured("data.window_ms=500"), recordings, "short")
    for cut in (study.training_windows, study.validation_windows):
        with pytest.raises(ConfigError, match=r"no windows of s1.*held for 500 ms") as error:
            cut()
        assert "\n" not in str(error.value)


def test_recordings_without_pose_are_refused(handmade, recordings):
    bare = dataclasses.replace(recordings[2], pose=None)
    with pytest.raises(RecordingError, match="has no hand pose"):
        make_study(handmade.configured(), [*recordings[:2], bare, *recordings[3:]], "bare")


def test_a_plan_refuses_recordings_of_another_kind(study, recordings):
    for change in ({"rate_hz": 100.0}, {"emg": recordings[0].emg[:, :2]}):
        with pytest.raises(RecordingError, match="expected 3 channels at 200 Hz") as error:
            apply_plan(study.plan, [dataclasses.replace(recordings[0], **change)])
        assert "\n" not in str(error.value)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="found none"):
        read_all(tmp_path)
