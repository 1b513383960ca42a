"""`base` from a run to a package, and what cannot be quantized."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from embridge.benchmarks.evaluation import evaluate
from embridge.device.errors import ConfigError
from embridge.device.package import read_package
from embridge.device.pipeline import open_model
from embridge.quantize.base_layers import BaseShape
from embridge.quantize.base_quantizer import (
    quantize_base,
)
from embridge.quantize.run import lower_folder, quantize_folder
from embridge.training.base import ProjectedBase, QFormerBase
from embridge.training.config import PRESETS, BaseConfig, load_config
from embridge.training.models import build_models
from embridge.training.run_folder import BEST, RunFolder, create_run, save_weights
from embridge.training.study import make_study, read_all
from embridge.training.synth import synthesize

Windows = NDArray[np.float32]
CONFIG = BaseConfig(
    dim=32, depth=1, heads=4, feed_forward=64, patch_ms=25, queries=4, instance_norm="window"
)
SHAPE = BaseShape(CONFIG, channels=8, window=200, rate_hz=1000, embedding=CONFIG.dim)  # 8 patches


@pytest.fixture
def base() -> QFormerBase:
    return SHAPE.untrained()


def with_nan(windows: Windows) -> Windows:
    windows[3, 2, 50] = np.nan
    return windows


def with_dead_channel(windows: Windows) -> Windows:
    windows[:, 5] = 0.25
    return windows


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda windows: windows[:0], "no calibration windows"),
        (with_nan, "NaN"),
        (with_dead_channel, r"channels \[5\] are constant"),
        (lambda windows: windows[:, :4], r"\(C, T\) = \(8, 200\)"),
    ],
)
def test_unusable_calibration_windows_are_refused_in_one_line(make_windows, base, spoil, message):
    with pytest.raises(ConfigError, match=message) as caught:
        quantize_base(base, SHAPE, spoil(make_windows(1)), "w8a8", seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", ["w8a8-qat", "w4a4"])
def test_a_recipe_that_base_does_not_take_is_refused_with_those_it_takes(
    make_windows, base, recipe
):
    with pytest.raises(ConfigError, match=r"calibration alone; choose one of .*w8a8"):
        quantize_base(base, SHAPE, make_windows(1), recipe, seed=0)


def test_a_base_without_a_qformer_is_refused_in_one_line(make_windows, base):
    other = ProjectedBase(base.encoder, base.encoder.dim)
    with pytest.raises(ConfigError, match="only a `base` with a Q-Former is quantized") as caught:
        quantize_base(other, SHAPE, make_windows(1), "w8a8", seed=0)
    assert "\n" not in str(caught.value)


def cosines(a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.float64]:
    """Of matching query vectors."""
    pair = (torch.from_numpy(x.astype(np.float64)) for x in (a, b))
    return F.cosine_similarity(*pair, dim=-1).numpy()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on synthetic recordings, beside it in `synthetic`, that was never trained."""
    folder = tmp_path_factory.mktemp("base")
    synthesize(folder / "synthetic", users=4, seconds_per_stage=2)
    changes = ["base.depth=1", "base.dim=32", "base.queries=4", "optim.threads=1"]
    source = f"data.path={json.dumps(str(folder / 'synthetic'))}"
    config = load_config(PRESETS / "raw.toml", [*changes, source])
    study = make_study(config, read_all(folder / "synthetic"), "synthetic")
    run = create_run(folder / "run", config, study.plan)
    models = build_models(config, study.plan)
    save_weights(run.path / BEST, {name: m.state_dict() for name, m in models.parts.items()})
    return run


def test_a_base_package_is_evaluated_and_decides_by_several_queries(run: RunFolder):
    with pytest.raises(ConfigError, match="'base' is not quantized yet"):
        lower_folder(run.path, ["tflite-int8"], None, encoder="base")
    moved = quantize_folder(run.path, "w8a8", encoder="base")
    assert moved["cosine"]["mean"] > 0.99
    lowered = lower_folder(run.path, ["tflite-int8"], None, encoder="base")
    path = run.path / "raw-base.embridge"
    assert lowered["package"] == str(path)
    manifest = read_package(path).manifest
    assert (manifest.encoder, manifest.embedding.queries) == ("base", 4)
    assert 0.5 < manifest.results["integer_share_of_arithmetic"] < 1
    data = Path(run.config.data.path)
    expected = evaluate(path, data, "float", "T1", 40)
    for stage in ("fakequant", "tflite-int8"):
        result = evaluate(path, data, stage, "T1", 40)
        assert result.embeddings.shape == (40, 4, 48)
        assert cosines(result.embeddings, expected.embeddings).mean() > 0.99
    model = open_model(read_package(path), "tflite-int8")
    query = model.query(expected.test.inputs[0])
    assert (query.shape, query.dtype) == ((4, 48), np.int8)
    assert 0 < model.decide(0, expected.test.inputs[0]).share <= 1


def test_a_checkpoint_of_another_architecture_is_refused_in_one_line(run: RunFolder):
    changed = Path(shutil.copytree(run.path, run.path.with_name("changed")))
    config = json.loads((changed / "config.json").read_text())
    config["base"]["queries"] = 8
    (changed / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="base: weights of another architecture") as caught:
        quantize_folder(changed, "w8a8", encoder="base")
    assert "\n" not in str(caught.value)


def test_an_unknown_encoder_is_refused_with_the_known_ones(run: RunFolder):
    with pytest.raises(ConfigError, match="unknown encoder 'tiny'; choose one of watch, base"):
        quantize_folder(run.path, "w8a8", encoder="tiny")
