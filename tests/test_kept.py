"""What int8 and compression keep: paired differences, their intervals, and the whole bench."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.benchmarks import kept, kept_report
from embridge.benchmarks.evaluation import evaluate
from embridge.benchmarks.kept import SCORES, Judged, Row, measure_kept
from embridge.device.errors import ConfigError
from embridge.device.gallery_codes import FLOAT_BITS, row_bytes
from embridge.device.package import read_package

ROWS = (Row("float"), Row("tflite-int8", 8), Row("float", FLOAT_BITS, 1))
Winners = NDArray[np.int64]


def judged_of(
    change: Callable[[Judged], Winners], users: int = 6, trials: int = 4, windows: int = 5
) -> Judged:
    """Users who make 3 seen and 2 unseen gestures; the reference is right two times in three.

    change: gives the second row's winners, of both kinds; the row of prototypes is the reference
    """
    u, label, trial, _ = np.indices((users, 5, trials, windows)).reshape(4, -1)
    right = np.random.default_rng(0).random(len(u)) < 2 / 3
    winner = np.where(right, label, (label + 1) % 5)
    row = np.stack([winner] * 3)
    same = Judged(
        users=tuple(f"u{i}" for i in range(users)),
        user=u,
        label=label,
        trial=trial,
        unseen=label >= 3,
        own=row,
        every=row,
        chance=np.tile([1 / 3, 1 / 2, 1 / 5, 1 / 5, 1 / 5], (users, 1)),
        gallery_rows=np.array([50, 50, 5]),
        gallery_bytes=np.array([50 * 64, 50 * 16, 5 * 64]),
    )
    changed = row.copy()
    changed[1] = change(same)
    return replace(same, own=changed, every=changed)


def unchanged(judged: Judged) -> Winners:
    return judged.own[0]


def shuffled_for(user: int) -> Callable[[Judged], Winners]:
    def change(judged: Judged) -> Winners:
        winners = judged.own[0].copy()
        mine = judged.user == user
        winners[mine] = np.random.default_rng(1).permutation(winners[mine])
        return winners

    return change


def always_right(judged: Judged) -> Winners:
    return judged.label


def always_wrong(judged: Judged) -> Winners:
    return judged.label + 10


def test_identical_decisions_differ_by_exactly_nothing() -> None:
    found = measure_kept(ROWS, judged_of(unchanged), resamples=2000)
    for difference in (found.to_reference, found.to_prototypes):
        for values in (difference.mean, difference.over_users, difference.over_trials):
            assert not values.any()
    assert (found.same_decision == 1).all()
    assert (found.accuracy[1] == found.accuracy[0]).all()


def test_a_loss_of_one_user_moves_the_intervals_below() -> None:
    found = measure_kept(ROWS, judged_of(shuffled_for(2)), resamples=2000)
    lost = found.accuracy[1] - found.accuracy[0]
    assert (lost[2] < -0.1).all()
    assert not np.delete(lost, 2, axis=0).any()
    np.testing.assert_allclose(found.to_reference.mean[1], 100 * lost[2] / 6)
    for low, high in (found.to_reference.over_users[:, 1], found.to_reference.over_trials[:, 1]):
        assert (low < found.to_reference.mean[1]).all()
        assert (high <= 0).all()
    assert (found.same_decision[1] < 1).all()


def test_scores_of_always_right_and_always_wrong_are_one_and_nothing() -> None:
    right = measure_kept(ROWS, judged_of(always_right), resamples=100)
    wrong = measure_kept(ROWS, judged_of(always_wrong), resamples=100)
    assert (right.accuracy[1] == 1).all()
    assert not wrong.accuracy[1].any()
    assert (right.ci95[:, 1] == 1).all()
    assert not wrong.same_decision[1].any()


def test_scores_are_mean_recalls_and_their_harmonic_mean() -> None:
    judged = judged_of(unchanged)
    more = judged.unseen & (np.arange(len(judged.user)) % 2 == 0)
    winners = np.where(more, 99, judged.every)  # all gestures compete: half of the unseen is lost
    accuracy = measure_kept(ROWS, replace(judged, every=winners), resamples=10).accuracy[0]
    for u in range(6):
        recalls = {}
        for name, predicted in (("own", judged.own[0]), ("all", winners[0])):
            recalls[name] = [
                np.mean(predicted[cell] == label)
                for label in range(5)
                if (cell := (judged.user == u) & (judged.label == label)).any()
            ]
        seen, unseen = np.mean(recalls["all"][:3]), np.mean(recalls["all"][3:])
        expected = [np.mean(recalls["own"][:3]), np.mean(recalls["own"][3:]), seen, unseen]
        harmonic = 2 / (1 / seen + 1 / unseen)
        np.testing.assert_allclose(accuracy[u], [*expected, harmonic])


def test_the_interval_over_users_is_that_of_all_ways_to_draw_them() -> None:
    values = np.array([0.0, 0.1, 0.4, 1.0])
    ways = [np.mean(draw) for draw in itertools.product(values, repeat=4)]
    drawn = np.random.default_rng(0).integers(4, size=(20_000, 4))
    samples = kept.resampled(values[None, :, None], drawn)[:, 0, 0]
    assert sorted({round(s, 9) for s in samples}) == sorted({round(w, 9) for w in ways})
    np.testing.assert_allclose(kept.ci95(samples), np.percentile(ways, [2.5, 97.5]), atol=0.026)
    np.testing.assert_allclose(samples.mean(), values.mean(), atol=0.01)
    np.testing.assert_allclose(samples.var(), values.var() / 4, rtol=0.05)


def test_a_resample_of_two_users_is_one_of_three_means() -> None:
    drawn = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    samples = kept.resampled(np.array([[[0.0], [1.0]]]), drawn)[:, 0, 0]
    assert samples.tolist() == [0, 0.5, 0.5, 1]


def coin(share: float) -> Callable[[Judged], Winners]:
    def change(judged: Judged) -> Winners:
        hit = np.random.default_rng(2).random(len(judged.label)) < share
        return np.where(hit, judged.label, 99)

    return change


def test_trials_add_to_the_spread_as_in_theory() -> None:
    """One kind of user: variance over trials within users, halved again by two draws of a user."""
    judged = judged_of(coin(0.5), users=8, trials=4, windows=1)
    found = measure_kept(ROWS, judged, resamples=20_000)
    differs = found.accuracy[1, :, 0] - found.accuracy[0, :, 0]
    gain = (judged.own[1] == judged.label).astype(float) - (judged.own[0] == judged.label)
    seen = gain.reshape(8, 5, 4)[:, :3]  # user, gesture, trial of one window
    within = seen.var(axis=2).mean() / (3 * 4 * 8)
    expected = 100 * np.sqrt(differs.var() / 8 + within)
    low, high = found.to_reference.over_trials[:, 1, 0]
    assert (high - low) / (2 * 1.96) == pytest.approx(expected, rel=0.05)
    low, high = found.to_reference.over_users[:, 1, 0]
    assert (high - low) / (2 * 1.96) == pytest.approx(100 * differs.std() / np.sqrt(8), rel=0.08)


def test_the_same_seed_gives_the_same_intervals() -> None:
    judged = judged_of(shuffled_for(1))
    once, again = (measure_kept(ROWS, judged, resamples=200, seed=3) for _ in range(2))
    np.testing.assert_array_equal(once.to_reference.over_trials, again.to_reference.over_trials)
    np.testing.assert_array_equal(once.ci95, again.ci95)


def test_pooling_gives_every_user_the_scores_it_had_alone() -> None:
    one, two = judged_of(coin(0.3), users=2), judged_of(coin(0.8), users=3)
    two = replace(two, users=("v0", "v1", "v2"), gallery_bytes=2 * two.gallery_bytes)
    both = kept.pooled([one, two])
    assert both.users == ("u0", "u1", "v0", "v1", "v2")
    assert both.gallery_bytes.tolist() == two.gallery_bytes.tolist()
    alone = [measure_kept(ROWS, part, resamples=10).accuracy for part in (one, two)]
    together = measure_kept(ROWS, both, resamples=10).accuracy
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))


def test_a_user_of_two_packages_is_refused_even_when_their_files_share_a_name() -> None:
    kept.require_users_once([("a.embridge", ("s1", "s2")), ("a.embridge", ("s3",))])
    for name in ("a.embridge", "b.embridge"):
        with pytest.raises(ConfigError, match=f"user s2 is a test user of a.* and of {name}") as no:
            kept.require_users_once([("a.embridge", ("s1", "s2")), (name, ("s3", "s2"))])
        assert "\n" not in str(no.value)


def test_a_user_without_unseen_windows_is_named() -> None:
    judged = judged_of(unchanged)
    lacking = replace(judged, unseen=judged.unseen & (judged.user != 4))
    with pytest.raises(ConfigError, match="user u4 has no window of the unseen gestures"):
        measure_kept(ROWS, lacking, resamples=10)


def test_the_rows_are_encoders_against_galleries_and_prototypes() -> None:
    rows = kept.combinations(["tflite-int8", "executorch-int8"], 2)
    assert rows[0] == Row("float", FLOAT_BITS, 0)
    assert len(rows) == len(set(rows)) == 2 * (2 + 2 * 4)
    assert {row.prototypes for row in rows} == {0, 2}
    for stages, count in ((["float"], 1), ([], 1), (["tflite-int8"], 0)):
        with pytest.raises(ConfigError, match="to hold against 'float'"):
            kept.combinations(stages, count)


@pytest.fixture(scope="module")
def report(made: Path) -> dict[str, Any]:
    return kept_report.bench_accuracy([made / "raw.embridge"], made / "synthetic", limit=300)


def test_the_bench_reports_every_row_with_its_units(made: Path, report: dict[str, Any]) -> None:
    package = read_package(made / "raw.embridge")
    assert json.loads(json.dumps(report)) == report
    assert report["schema"] == 1
    assert report["windows"] == 300
    assert report["packages"][0]["sha256"] == package.sha256
    assert report["packages"][0]["test_users"] == report["users"]
    assert not {*report["users"]} & {*package.manifest.config["plan"]["train_users"]}
    assert len(report["rows"]) == 12
    reference = report["rows"][0]
    assert reference["same_decision"] == {"seen": 1, "unseen": 1, "all": 1}
    dim, rows = package.manifest.embedding.dim, len(package.gallery("float").labels)
    for row in report["rows"]:
        assert row["gallery_rows"] == (len(package.manifest.labels) if is_few(row) else rows)
        assert row["gallery_bytes"] == row["gallery_rows"] * row_bytes(dim, row["gallery_bits"])
        assert ("to_float_prototypes" in row) == is_few(row)
        for score in SCORES:
            found = row["scores"][score]
            low, high = found["ci95_points"]
            assert low - 1e-9 <= found["difference_points"] <= high + 1e-9
            assert set(found["per_user"]) == set(report["users"])


def is_few(row: dict[str, Any]) -> bool:
    return bool(row["prototypes_per_gesture"])


def test_the_bench_agrees_with_eval(made: Path, report: dict[str, Any]) -> None:
    """One test user here, so that its accuracy is that of all windows."""
    assert len(report["users"]) == 1
    rows = {(row["encoder"], row["gallery_bits"]): row for row in reversed(report["rows"])}
    for stage, bits in (("float", FLOAT_BITS), ("tflite-int8", 8)):
        scores = evaluate(made / "raw.embridge", made / "synthetic", stage, "T1", 300).scores
        for group in ("seen", "unseen"):
            found = rows[stage, bits]["scores"][group]["balanced_accuracy"]
            assert found == pytest.approx(scores[group].balanced_accuracy)


def test_verdicts_hold_values_against_limits(report: dict[str, Any]) -> None:
    for row in report["rows"]:
        for score, verdict in row["verdicts"].items():
            low, high = verdict["ci95_points"]["value"]
            assert [low, high] == row["scores"][score]["ci95_points"]
            assert verdict["ci95_points"]["passed"] == (low >= -0.5 and high >= 0)
            same = verdict["same_decision"]
            assert same["passed"] == (same["value"] >= same["limit"] == 0.98)
    assert all(v["passed"] for of in report["rows"][0]["verdicts"].values() for v in of.values())


def test_the_text_has_a_line_for_every_row_and_score(report: dict[str, Any]) -> None:
    lines = kept_report.text(report).splitlines()
    for row in report["rows"]:
        named = [line for line in lines if line.startswith(kept_report.row_name(row))]
        assert len(named) == len(SCORES)
    assert any("Fewer than 8 users" in line for line in lines)
    assert any("says nothing of real accuracy" in line for line in lines)
    assert max(map(len, lines)) < 160


def test_a_reference_no_better_than_chance_is_said_to_be(report: dict[str, Any]) -> None:
    for score, above in report["reference_above_chance"].items():
        low = report["rows"][0]["scores"][score]["ci95"][0]
        assert above == (low > report["chance"][score])
        told = report | {"reference_above_chance": dict.fromkeys(SCORES, True) | {score: False}}
        assert kept_report.text(told).count("there is nothing to keep") == 1


def test_the_plot_is_written_by_suffix(report: dict[str, Any], tmp_path: Path) -> None:
    for name, begins in (("kept.png", b"\x89PNG"), ("kept.svg", b"<?xml")):
        kept_report.plot(report, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begins)
    kept_report.plot(report, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "kept.svg").read_bytes()
    with pytest.raises(ConfigError, match=r"expected a plot named \.png or \.svg"):
        kept_report.plot(report, tmp_path / "kept.pdf")


def test_the_same_package_twice_is_refused(made: Path) -> None:
    path = made / "raw.embridge"
    with pytest.raises(ConfigError, match="expected every user once"):
        kept_report.bench_accuracy([path, path], made / "synthetic", limit=50)
