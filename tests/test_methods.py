"""Every row of the paper is a setting of the one trainer."""

import json
from pathlib import Path

import pytest

from embridge.device.errors import ConfigError
from embridge.quantize.run import quantize_folder
from embridge.training.base import BaseEncoder, ProjectedBase, QFormerBase
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.method import method_names
from embridge.training.models import load_models
from embridge.training.run import train_run
from embridge.training.run_folder import load_checkpoint, open_run
from embridge.training.synth import synthesize

SMALL = [
    "base.dim=16",
    "base.depth=2",
    "base.heads=2",
    "base.feed_forward=32",
    "base.queries=3",
    "optim.pose_mae_steps=2",
    "optim.emg_mae_steps=2",
    "optim.align_steps=3",
    "optim.watch_steps=2",
    "optim.batch=8",
    "optim.threads=1",
    "data.train_hop_ms=200",
    "loss.clusters=8",
]
STAGE_1 = ["pose_mae", "emg_mae"]
ALIGNED = [*STAGE_1, "align", "watch"]
# name: phases, head, terms of the alignment
ROWS: dict[str, tuple[list[str], type[BaseEncoder] | None, set[str]]] = {
    "embridge": (ALIGNED, QFormerBase, {"info_nce", "cascle", "mprl"}),
    "qformer": (ALIGNED, QFormerBase, {"info_nce"}),
    "qformer-ls": (ALIGNED, QFormerBase, {"info_nce"}),
    "cpep": (ALIGNED, ProjectedBase, {"info_nce"}),
    "cpep-ls": (ALIGNED, ProjectedBase, {"info_nce"}),
    "no-qformer": (ALIGNED, ProjectedBase, {"info_nce", "cascle"}),
    "no-mprl": (ALIGNED, QFormerBase, {"info_nce", "cascle"}),
    "no-cascle": (ALIGNED, QFormerBase, {"info_nce", "mprl"}),
    "label-smoothing": (ALIGNED, QFormerBase, {"info_nce", "mprl"}),
    "softclip": (ALIGNED, QFormerBase, {"info_nce", "softclip", "mprl"}),
    "emg-mae": (["emg_mae"], BaseEncoder, set()),
    "supervised": (["supervised"], BaseEncoder, set()),
    "pose": (["pose_mae"], None, set()),
}
RAW = PRESETS / "raw.toml"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthesize(folder, users=3, seconds_per_stage=2.0)
    return folder


def refused(match: str, overrides: list[str], method: str | None = None) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        load_config(RAW, overrides, method)
    assert "\n" not in str(error.value)


def test_the_rows_are_the_files() -> None:
    assert sorted(ROWS) == method_names()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_method_lies_over_every_preset(preset: str, name: str) -> None:
    config = load_config(PRESETS / f"{preset}.toml", method=name)
    assert config.name == f"{preset}-{name}"
    assert config.method.name == name
    assert list(config.method.phases) == ROWS[name][0]
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_preset_alone_is_embridge_in_full() -> None:
    plain, named = load_config(RAW), load_config(RAW, method="embridge")
    assert named.model_copy(update={"name": "raw"}) == plain


def test_a_method_changes_its_own_flags_and_overrides_come_last() -> None:
    plain, cpep = load_config(RAW), load_config(RAW, ["loss.tau=0.05"], "cpep")
    assert (cpep.loss.symmetric, cpep.loss.targets, cpep.loss.lambda_) == (True, "none", 0)
    assert load_config(RAW, method="cpep").loss.tau == 0.02
    assert cpep.loss.tau == 0.05
    assert (cpep.data, cpep.optim, cpep.watch) == (plain.data, plain.optim, plain.watch)
    assert cpep.base.model_copy(update={"head": "qformer"}) == plain.base


@pytest.mark.parametrize("name", ["none", "../raw", "embridge.toml"])
def test_an_unknown_method_is_refused_with_the_known_ones(name: str) -> None:
    refused(rf"method '{name}': no such method; they are cpep, cpep-ls, embridge", [], name)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["base.head=projection"], r"loss\.lambda_=1: MPRL needs base\.head=qformer"),
        (["base.head=none"], r"base\.head=none: align needs qformer or projection"),
        (['method.phases=["emg_mae"]'], r"base\.head=qformer: align alone trains it"),
        (['method.phases=["align"]'], r"method\.phases: align needs the pose encoder"),
        (['method.phases=["pose_mae", "watch"]', "base.head=none"], r"watch is distilled from"),
        (['method.phases=["align", "pose_mae"]'], r"in this order"),
        (['method.phases=["pose_mae", "pose_mae"]'], r"in this order"),
        (["method.phases=[]"], r"expected some of pose_mae"),
        (['method.phases=["dance"]'], r"method\.phases\.0: input should be 'pose_mae'"),
        (
            ['method.phases=["pose_mae", "supervised", "align"]'],
            r"align and supervised both train the EMG encoder",
        ),
        (["loss.renormalise=true", "loss.targets=softclip"], r"loss\.renormalise: it is CASCLe's"),
        (["loss.targets=hard"], r"loss\.targets: input should be 'none'"),
        (["loss.smoothing=1"], r"loss\.smoothing"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(overrides: list[str], match: str) -> None:
    refused(rf"raw\.toml: .*{match}", overrides)


def test_mprl_cannot_be_asked_of_a_method_without_a_qformer() -> None:
    refused(r"MPRL needs base\.head=qformer", ["loss.lambda_=0.5"], "cpep")


@pytest.fixture(scope="module", params=ROWS)
def trained(
    request: pytest.FixtureRequest, recordings: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    name: str = request.param
    out = tmp_path_factory.mktemp("runs") / name
    train_run(Path("raw"), SMALL, recordings, out, method=name)
    return name, out


def test_a_method_trains_its_phases_and_has_its_parts_alone(trained: tuple[str, Path]) -> None:
    name, out = trained
    phases, head, terms = ROWS[name]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(row["phase"] for row in rows)) == phases
    for row in rows:
        if row["phase"] == "align":
            assert row.keys() == {"phase", "step", "validation", "loss", "prior", *terms}
    modules = load_checkpoint(out / "last.ckpt")["modules"]
    pose = {"pose"} if "pose_mae" in phases else set()
    assert modules.keys() == {*phases, *pose}
    if "align" in phases:
        has_mprl = any(key.startswith("mprl.") for key in modules["align"])
        assert has_mprl == ("mprl" in terms)
        assert bool(modules["pose"]["centroids"].any()) == ("cascle" in terms)
    models = load_models(open_run(out))
    expected = {"pose": "pose_mae" in phases, "base": head is not None, "watch": "watch" in phases}
    assert models.parts.keys() == {part for part, there in expected.items() if there}
    if head is not None:
        assert type(models.base) is head


@pytest.mark.parametrize("trained", ["emg-mae", "supervised", "pose"], indirect=True)
def test_without_alignment_there_is_nothing_to_quantize(trained: tuple[str, Path]) -> None:
    name, out = trained
    with pytest.raises(ConfigError, match=f"method {name} trains no encoder 'watch'") as error:
        quantize_folder(out, "w8a8")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("trained", ["emg-mae", "cpep"], indirect=True)
def test_a_base_without_a_qformer_is_not_quantized(trained: tuple[str, Path]) -> None:
    _, out = trained
    with pytest.raises(ConfigError, match="only a `base` with a Q-Former is quantized") as error:
        quantize_folder(out, "w8a8", encoder="base")
    assert "\n" not in str(error.value)


def test_a_run_goes_on_under_its_own_method_alone(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_run(Path("raw"), SMALL, recordings, out, method="emg-mae")
    with pytest.raises(ConfigError, match="a run of method emg-mae; --resume cannot make it cpep"):
        train_run(Path("raw"), [], None, out, method="cpep", resume=True)
    train_run(Path("raw"), [], None, out, method="emg-mae", resume=True)
    train_run(Path("raw"), [], None, out, resume=True)
