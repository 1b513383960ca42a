"""`embridge eval` and `bench methods` as a user types them, on runs of a few steps."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embridge.benchmarks import methods as job
from embridge.benchmarks.probing import probe
from embridge.device.emg2pose import write_emg2pose
from embridge.device.errors import ConfigError
from embridge.device.recordings import read_recording
from embridge.training.evaluate import known_users_test_set, make_test_set
from embridge.training.plan import FileSplit
from embridge.training.run_folder import open_run
from embridge.training.study import apply_plan, read_all
from embridge.training.synth import synthesize

Cli = Callable[..., tuple[int, str, str]]

STEPS = (
    "optim.pose_mae_steps=6",
    "optim.emg_mae_steps=3",
    "optim.align_steps=4",
    "optim.watch_steps=3",
    "optim.batch=8",
    "optim.validate_every=3",
    "optim.threads=1",
    "data.train_hop_ms=200",
    "data.test_users=2",
    "loss.clusters=8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    synthesize(out, users=4, seconds_per_stage=2.0)
    return out


@pytest.fixture(scope="module")
def plan(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> job.Plan:
    out = tmp_path_factory.mktemp("compared")
    cache = f"data.cache={json.dumps(str(tmp_path_factory.mktemp('cache')))}"
    shares, methods = (1.0, 0.4), ("cpep", "emg-mae")
    overrides = (*STEPS, cache)
    return job.Plan(Path("raw"), folder, out, methods, shares, (0,), overrides, "base", "T1")


@pytest.fixture(scope="module")
def compared(plan: job.Plan) -> job.Comparison:
    return job.compare(plan)


@pytest.fixture
def run(compared: job.Comparison, plan: job.Plan) -> Path:
    return plan.out / "cpep-share1-seed0"


def test_methods_are_compared_by_share(compared: job.Comparison, plan: job.Plan) -> None:
    report = json.loads(json.dumps(compared.json()))
    assert [(row["method"], row["share"]) for row in report["rows"]] == [
        ("cpep", 1.0), ("cpep", 0.4), ("emg-mae", 1.0), ("emg-mae", 0.4),
    ]  # fmt: skip
    aligned, probed = report["rows"][0]["figures"], report["rows"][2]["figures"]
    assert aligned.keys() == {*job.FIGURES}
    assert probed.keys() == {"lp_seen", "lp_unseen"}  # EMG-MAE is not aligned to poses
    assert all(0 <= figure["mean"] <= 1 for figure in aligned.values())
    assert aligned["zs_unseen"]["users"] == 2
    assert report["data"] == {"name": plan.data.name, "synthetic": True}
    assert len(report["paper"]["run_here"]) == 2  # those on all the data
    assert (plan.out / "report.md").is_file()
    assert "(synthetic)" in compared.markdown()
    assert "tier T1" in compared.text()


def test_less_data_means_fewer_training_windows_and_nothing_else(
    compared: job.Comparison, plan: job.Plan
) -> None:
    whole, less = (open_run(plan.out / f"cpep-share{share}-seed0") for share in ("1", "0.4"))
    assert (less.plan.share, less.plan.share_seed) == (0.4, 0)
    recordings = read_all(plan.data, data=whole.config.data)
    counts = [
        [len(study.training_windows()), len(study.validation_windows()), len(study.test_windows())]
        for study in (apply_plan(run.plan, recordings) for run in (whole, less))
    ]
    assert counts[1][0] == pytest.approx(0.4 * counts[0][0], rel=0.15)
    assert counts[1][1:] == counts[0][1:]


def test_finished_runs_are_kept(compared: job.Comparison, plan: job.Plan) -> None:
    """Called again, also with fewer methods, nothing is trained and figures are the same."""
    before = {file: file.stat().st_mtime_ns for file in plan.out.rglob("best.safetensors")}
    fewer = dataclasses.replace(plan, methods=("emg-mae",), shares=(0.4,))
    told: list[str] = []
    again = job.compare(fewer, progress=lambda done, total, text: told.append(text))
    assert not [text for text in told if "loss" in text]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert again.rows[0].figures() == compared.rows[3].figures()
    assert json.loads((plan.out / "report.json").read_text()) == json.loads(
        json.dumps(again.json())
    )


def test_a_folder_with_other_runs_is_refused(compared: job.Comparison, plan: job.Plan) -> None:
    other = dataclasses.replace(plan, overrides=(*plan.overrides, "optim.learning_rate=0.1"))
    with pytest.raises(ConfigError, match="another configuration") as error:
        job.compare(other)
    assert "\n" not in str(error.value)


def test_eval_says_what_was_run_on_what(cli: Cli, run: Path, folder: Path, tmp_path: Path) -> None:
    code, out, _ = cli("eval", run, "--data", folder, "--stage", "base", "--plots", tmp_path)
    assert code == 0
    for word in (
        f"on {folder.name} (synthetic)",
        "2 users",
        "tier T1",
        "harmonic mean",
        "kNN, k =",
    ):
        assert word in out
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == {
        "confusion-seen.png", "confusion-unseen.png", "confusion-generalised.png",
        "users.png", "map.png",
    }  # fmt: skip
    assert min(file.stat().st_size for file in tmp_path.iterdir()) > 3000


def test_the_json_of_eval_has_both_rules_and_units(cli: Cli, run: Path, folder: Path) -> None:
    code, out, _ = cli("eval", run, "--data", folder, "--tier", "T0", "--limit", 60, "--json")
    found = json.loads(out)
    assert (code, found["tier"], found["data"]["synthetic"]) == (0, "T0", True)
    assert found["zero_shot"].keys() == {"seen", "unseen", "all"}
    for rule in ("knn", "class_means"):
        for unit in ("windows", "repetitions"):
            assert "harmonic mean" in found["by_user"][rule][unit]
    assert sum(map(sum, found["by_user"]["knn"]["confusion"]["generalised"])) == 60


def test_a_probe_names_whose_labels_taught_it(
    cli: Cli, run: Path, folder: Path, tmp_path: Path
) -> None:
    code, out, _ = cli("eval", run, "--data", folder, "--probe", "--json", "--plots", tmp_path)
    rows = {(row["features"], row["group"]): row for row in json.loads(out)["rows"]}
    assert code == 0
    assert rows.keys() == {
        (who, group) for who in ("float", "pose encoder") for group in ("seen", "unseen")
    }
    assert rows["float", "seen"]["labels_from"] == "1 users of the encoder's training"
    assert rows["float", "unseen"]["labels_from"].startswith("the other half")
    assert rows["pose encoder", "seen"]["linear_probe"]["windows"]["mean"] > 0.9
    assert rows["float", "unseen"]["few_shot"]["unit"] == "windows"
    assert len(list(tmp_path.iterdir())) == 5


def test_users_trained_on_are_judged_apart_where_an_official_split_tests_them(
    run: Path, folder: Path
) -> None:
    opened = open_run(run)
    plan = opened.plan
    recordings = read_all(folder, data=opened.config.data)
    files = {}
    for recording in recordings:
        held_out = recording.head.gestures[0] in plan.unseen
        split, _ = plan.split_of(recording.name, recording.user)
        files[recording.name] = FileSplit(split="test" if held_out else split)
    known = plan.train_users[0]
    everyone = (known, *plan.test_users)
    official = plan.model_copy(update={"files": files, "test_users": everyone})
    study = apply_plan(official, recordings)
    assert official.strangers == plan.test_users
    asked = make_test_set(study, "T0").windows
    assert {asked.users[user] for user in asked.user} == {*plan.test_users}
    apart = known_users_test_set(study, "T0")
    assert apart is not None
    windows = apart.windows
    assert {windows.users[user] for user in windows.user} == {known}
    assert {plan.labels[label] for label in windows.label} == {*plan.unseen}
    assert known_users_test_set(apply_plan(plan, recordings), "T0") is None


@pytest.fixture(scope="module")
def without_pose(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same users' recordings as another data set: no pose, gestures of other names."""
    out = tmp_path_factory.mktemp("myo")
    for file in sorted(folder.glob("*.hdf5")):
        recording = read_recording(file)
        names = tuple(f"myo_{name}" for name in recording.gestures)
        bare = dataclasses.replace(recording, pose=None, gestures=names, source="myo")
        write_emg2pose(out / file.name, bare)
    return out


def test_a_set_without_pose_and_with_other_gestures_can_be_probed(
    run: Path, without_pose: Path
) -> None:
    found = probe(run, without_pose, "base", "T0")
    assert [(row.encoder, row.group) for row in found.rows] == [("base", "unseen")]
    row = found.rows[0]
    assert all(gesture.startswith("myo_") for gesture in row.gestures)
    figure = row.probe.figure()
    assert figure is not None
    assert len(figure.per_user) == 4  # users of another set are others, even when named alike
    assert row.shots.figures[1] is not None


def test_a_set_without_a_known_gesture_has_no_profiles(run: Path, without_pose: Path) -> None:
    with pytest.raises(ConfigError, match="use tier T0") as error:
        probe(run, without_pose, "base", "T1")
    assert "\n" not in str(error.value)


def test_the_table_holds_the_run_beside_the_published_rows(
    cli: Cli, run: Path, plan: job.Plan, folder: Path
) -> None:
    code, out, _ = cli("eval", run, plan.out / "emg-mae-share1-seed0", "--table", "--data", folder)
    assert code == 0
    here = [line for line in out.splitlines() if "HERE" in line and "run " in line]
    assert [line.split(",")[0] for line in here[1:]] == ["emg-mae", "cpep"]
    assert "published, emg2pose" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--probe", "--table"), "expected one of them"),
        (("--probe", "--limit", "5"), "belongs to zero-shot alone"),
        (("--threshold", "0.5"), "belongs to false-activations alone"),
        (("--false-activations",), "expected NAME.embridge, got a folder"),
        (("--stage", "tflite-int8"), "evaluated on a package"),
        (("--tier", "T9"), "expected T0 or T1"),
    ],
)
def test_a_wrong_call_gets_one_line(
    cli: Cli, run: Path, folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = cli("eval", run, "--data", folder, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("embridge: ")]
    assert (code, out, len(lines)) == (1, "", 1)
    assert words in lines[0]


def test_a_package_is_no_run(cli: Cli, run: Path, folder: Path, tmp_path: Path) -> None:
    package = tmp_path / "x.embridge"
    package.write_bytes(b"")
    for flag in ("--probe", "--table"):
        code, _, err = cli("eval", package, flag, "--data", folder)
        assert code == 1
        assert "expected the folder of a run" in err
    code, _, err = cli("eval", run, package, "--data", folder)
    assert (code, "--table takes several" in err) == (1, True)


def test_one_test_user_is_too_few_for_a_probe(run: Path, folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*user0[0-2]*.hdf5"):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ConfigError, match="at least 2 users") as error:
        probe(run, tmp_path, "base", "T1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("cpep", "cpep")}, "each of them once"),
        ({"methods": ("nonsense",)}, "nonsense"),
        ({"shares": (0.0,)}, "data.share"),
        ({"seeds": ()}, "at least one"),
        ({"stage": "float"}, "emg-mae trains no `watch` encoder"),
        ({"stage": "tflite-int8"}, "evaluated on a package"),
    ],
)
def test_a_wrong_comparison_is_refused_before_training(
    plan: job.Plan, tmp_path: Path, change: dict[str, tuple[object, ...]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        job.compare(dataclasses.replace(plan, out=tmp_path / "new", **change))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_ridge_that_a_run_must_beat_is_a_stage_of_it(run: Path, folder: Path, cli: Cli) -> None:
    code, out, _ = cli("eval", str(run), "--data", str(folder), "--stage", "ridge", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["stage"] == "ridge"
    assert (
        found["zero_shot"]["unseen"]["balanced_accuracy"] > found["zero_shot"]["unseen"]["chance"]
    )
