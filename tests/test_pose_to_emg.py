"""The linear model pose -> EMG, the space it spans, and what holds encoders to it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.device.errors import ConfigError
from embridge.training.align import Alignment, fix_pose_space
from embridge.training.base import BaseEncoder, ProjectedBase, QFormerBase
from embridge.training.config import PRESETS, load_config
from embridge.training.distil import watch_losses
from embridge.training.encoders import PatchEncoder, PoseEmbedder
from embridge.training.losses import off_prior
from embridge.training.method import LossConfig
from embridge.training.models import build_models
from embridge.training.plan import Geometry
from embridge.training.pose_to_emg import PoseToEmg, PoseToEmgConfig, emg_features
from embridge.training.qformer import QFormer
from embridge.training.table.encoders import Shape
from embridge.training.watch import Stage, WatchEncoder, WatchShape

SIZE = (32, 2, 4, 64)  # dim, depth, heads, feed-forward
JOINTS, CHANNELS, SHARE = 3, 4, 0.6
Array = NDArray[np.float64]


def rectified(pose: Array, power: float) -> Array:
    """Each joint twice: as far as it is flexed, and as far as it is extended."""
    return np.concatenate([np.maximum(pose, 0) ** power, np.maximum(-pose, 0) ** power], axis=1)


def planted(
    seed: int, count: int = 400, noise: float = 0.0, power: float = 1.5
) -> tuple[Array, Array, Array, Array]:
    """EMG (N, F), poses (N, J), and the map and bias that one was made from the other by."""
    rng = np.random.default_rng(seed)
    pose = rng.standard_normal((count, JOINTS))
    weight, bias = rng.standard_normal((2 * JOINTS, CHANNELS)), rng.standard_normal(CHANNELS)
    emg = rectified(pose, power) @ weight + bias
    return emg + noise * rng.standard_normal(emg.shape), pose, weight, bias


def fitted(
    emg: Array, pose: Array, config: PoseToEmgConfig, group: NDArray[np.int64] | None = None
) -> PoseToEmg:
    model = PoseToEmg(JOINTS, CHANNELS, config)
    model.fit(emg, pose, np.zeros(len(emg), np.int64) if group is None else group)
    return model


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1.5, 2.0]))
def test_a_rectified_linear_map_is_found_again(seed: int, power: float) -> None:
    emg, pose, weight, bias = planted(seed, power=power)
    model = fitted(emg, pose, PoseToEmgConfig(power=power, ridge=1e-9))
    assert model.weight.numpy() == pytest.approx(weight, abs=1e-3)
    assert model.bias.numpy() == pytest.approx(bias, abs=1e-3)
    own = model(torch.from_numpy(pose).float())
    assert torch.allclose(own, model.emg(torch.from_numpy(emg).float()), atol=1e-3)


def test_whitening_is_the_root_of_the_inverse_shrunk_covariance_within_groups() -> None:
    emg, pose, *_ = planted(0, noise=0.5)
    group = np.arange(len(emg)) % 5
    emg += 3 * group[:, None]  # between groups, which must not count
    model = fitted(emg, pose, PoseToEmgConfig(shrink=0.7), group)
    centred = np.concatenate([emg[group == g] - emg[group == g].mean(axis=0) for g in range(5)])
    within = centred.T @ centred / (len(emg) - 1)
    shrunk = within + 0.7 * np.trace(within) / CHANNELS * np.eye(CHANNELS)
    whitening = model.whitening.numpy().astype(np.float64)
    assert whitening @ whitening.T == pytest.approx(np.linalg.inv(shrunk), rel=1e-4)
    assert model.mean.numpy() == pytest.approx(emg.mean(axis=0), rel=1e-5)
    x = (emg - emg.mean(axis=0)) @ whitening
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert model.emg(torch.from_numpy(emg).float()).numpy() == pytest.approx(expected, abs=1e-4)


def test_the_map_is_the_ridge_solution_for_the_penalty_per_unit_of_weight() -> None:
    emg, pose, *_ = planted(1, noise=0.5)
    model = fitted(emg, pose, PoseToEmgConfig(ridge=0.3))
    x = rectified(pose, 1.5)
    x, y = x - x.mean(axis=0), emg - emg.mean(axis=0)
    solution = np.linalg.solve(x.T @ x + 0.3 * len(x) * np.eye(2 * JOINTS), x.T @ y)
    assert model.weight.numpy() == pytest.approx(solution, abs=1e-5)


def test_whole_weights_count_like_repetitions() -> None:
    emg, pose, *_ = planted(2, count=60, noise=0.5)
    group = np.zeros(60, np.int64)
    weight = np.random.default_rng(0).integers(1, 5, 60)
    weighted, repeated = (PoseToEmg(JOINTS, CHANNELS, PoseToEmgConfig()) for _ in range(2))
    weighted.fit(emg, pose, group, weight.astype(np.float64))
    repeated.fit(*(np.repeat(each, weight, axis=0) for each in (emg, pose, group)))
    for name in ("weight", "bias", "mean"):
        assert torch.allclose(weighted.get_buffer(name), repeated.get_buffer(name), atol=1e-5)


def test_weights_that_are_all_alike_count_like_none() -> None:
    emg, pose, *_ = planted(3, noise=0.5)
    group = np.arange(len(emg)) % 3
    alike, plain = (PoseToEmg(JOINTS, CHANNELS, PoseToEmgConfig()) for _ in range(2))
    alike.fit(emg, pose, group, np.full(len(emg), 1.0))
    plain.fit(emg, pose, group)
    for name, values in plain.state_dict().items():
        assert torch.allclose(alike.get_buffer(name), values)


def test_what_was_fitted_goes_with_the_weights() -> None:
    emg, pose, *_ = planted(4, noise=0.5)
    model = fitted(emg, pose, PoseToEmgConfig())
    other = PoseToEmg(JOINTS, CHANNELS, PoseToEmgConfig())
    other.load_state_dict(model.state_dict())
    asked = torch.from_numpy(pose).float()
    assert torch.equal(other(asked), model(asked))
    assert not list(model.parameters())  # nothing of it is trained further


def test_envelopes_are_averaged_and_waveforms_taken_by_their_power() -> None:
    windows = torch.randn(5, CHANNELS, 50)
    assert torch.equal(emg_features(windows, "mean"), windows.mean(dim=2))
    rms = emg_features(windows, "rms")
    assert torch.allclose(rms, (windows**2).mean(dim=2).sqrt(), atol=1e-5)
    assert torch.equal(rms, emg_features(-windows, "rms"))


def prior() -> PoseToEmg:
    emg, pose, *_ = planted(5, noise=0.5)
    return fitted(emg, pose, PoseToEmgConfig(), np.arange(len(emg)) % 4)


@pytest.fixture
def pose_side() -> PoseEmbedder:
    torch.manual_seed(0)
    embedder = PoseEmbedder(PatchEncoder(JOINTS, 80, 10, *SIZE), 6, prior(), SHARE)
    poses = np.random.default_rng(0).standard_normal((40, JOINTS, 80)).astype(np.float32)
    with torch.no_grad():
        fix_pose_space(embedder, poses, LossConfig(), seed=0)
    return embedder


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """EMG (B, C, T) and pose (B, J, T)."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(6, CHANNELS, 80, generator=generator),
        torch.randn(6, JOINTS, 80, generator=generator),
    )


def test_the_prior_is_its_share_of_the_squared_length_in_front(pose_side, batch) -> None:
    pose = batch[1]
    with torch.no_grad():
        v = pose_side(pose)
        alone = PoseEmbedder(pose_side.encoder, 6)
        alone.mean.copy_(pose_side.mean)
        learned = alone(pose)
    assert v.shape == (6, CHANNELS + 32)
    assert torch.allclose(v.norm(dim=1), torch.ones(6))
    front, back = v[:, :CHANNELS], v[:, CHANNELS:]
    assert torch.allclose(front.square().sum(dim=1), torch.full((6,), SHARE))
    assert torch.allclose(F.normalize(front, dim=1), pose_side.prior(pose.mean(dim=2)), atol=1e-6)
    assert torch.allclose(back, (1 - SHARE) ** 0.5 * learned, atol=1e-6)
    assert pose_side.centroids.shape == (6, CHANNELS + 32)
    assert torch.allclose(pose_side.centroids.norm(dim=1), torch.ones(6), atol=1e-5)


def bases(dim: int = CHANNELS + 32) -> list[BaseEncoder]:
    encoders = [PatchEncoder(CHANNELS, 80, 10, *SIZE) for _ in range(2)]
    return [QFormerBase(encoders[0], QFormer(encoders[0], 5), dim), ProjectedBase(encoders[1], dim)]


def test_off_prior_is_the_mean_of_one_minus_cosine_of_the_front() -> None:
    expected = F.normalize(torch.randn(6, CHANNELS), dim=1)
    back = torch.randn(6, 5, 32)
    there = torch.cat([0.3 * expected[:, None].expand(-1, 5, -1), back], dim=2)
    assert float(off_prior(there, expected)) == pytest.approx(0, abs=1e-6)
    away = torch.cat([-expected[:, None].expand(-1, 5, -1), back], dim=2)
    assert float(off_prior(away, expected)) == pytest.approx(2, abs=1e-6)
    queries = torch.randn(6, 5, 36)
    cosines = [
        F.cosine_similarity(queries[b, m, :CHANNELS], expected[b], dim=0)
        for b in range(6)
        for m in range(5)
    ]
    assert torch.allclose(off_prior(queries, expected), 1 - torch.stack(cosines).mean(), atol=1e-6)


@pytest.mark.parametrize("head", [0, 1])
def test_encoders_are_held_to_the_prior_of_their_own_window(pose_side, batch, head: int) -> None:
    base = bases()[head]
    config = LossConfig(lambda_=0, targets="none")
    terms = Alignment(base, config, 0.5, prior=3.0).losses(pose_side, *batch)
    s = pose_side.prior.of_windows(batch[0])
    assert torch.allclose(s, pose_side.prior.emg(batch[0].mean(dim=2)))
    assert torch.allclose(terms["prior"], off_prior(base(batch[0]), s))
    assert torch.allclose(terms["loss"], terms["info_nce"] + 3.0 * terms["prior"])
    terms["prior"].backward()
    assert all(weight.grad is not None for weight in base.encoder.parameters())
    front, back = base.project.weight.grad.split([CHANNELS, SIZE[0]])
    assert back.abs().max() < 1e-6 * front.abs().max()  # the learned part is left alone
    assert all(weight.grad is None for weight in pose_side.parameters())


def test_without_a_prior_there_is_no_such_term(batch) -> None:
    plain = PoseEmbedder(PatchEncoder(JOINTS, 80, 10, *SIZE), 6)
    terms = Alignment(bases(32)[1], LossConfig(lambda_=0, targets="none"), 0.5, prior=3.0).losses(
        plain, *batch
    )
    assert terms.keys() == {"loss", "info_nce"}


def test_watch_learns_the_space_with_the_prior_and_the_direction_of_base(pose_side, batch) -> None:
    config = LossConfig(lambda_=0, direct=7.0)
    teacher = Alignment(bases()[0], config, 0.5, prior=3.0)
    shape = WatchShape(CHANNELS, 80, CHANNELS + 32, Stage(8, 5, 2), (Stage(8, 5, 2),))
    watch = WatchEncoder(shape).eval()
    losses = watch_losses(watch, teacher, pose_side, config, *batch)
    taught = F.normalize(teacher.base(batch[0]).mean(dim=1), dim=1)
    own = F.normalize(watch.embed(batch[0]), dim=1)
    assert torch.allclose(losses["direct"], 1 - (taught * own).sum(dim=1).mean(), atol=1e-5)
    weights = {"direct": 7.0, "length": config.length, "unsteady": config.steady}
    terms = {name: value for name, value in losses.items() if name != "loss"}
    assert terms.keys() == {"info_nce", "cascle", "distil", *weights}
    expected = sum(weights.get(name, 1.0) * value for name, value in terms.items())
    assert torch.allclose(losses["loss"], expected)
    losses["direct"].backward()
    assert all(weight.grad is not None for weight in watch.parameters())
    side: list[nn.Module] = [teacher, pose_side]
    assert all(weight.grad is None for module in side for weight in module.parameters())


def test_share_zero_is_no_prior_and_the_encoders_own_width() -> None:
    geometry: Geometry = Shape(channels=10, joints=22, window=50, rate_hz=100)
    for share, front in ((0, 0), (0.5, 10)):
        config = load_config(PRESETS / "envelope.toml", [f"prior.share={share}"])
        models = build_models(config, geometry)
        assert (models.pose.prior is None) == (share == 0)
        assert config.embedding(10) == config.base.dim + front
        assert models.base(torch.zeros(2, 10, 50)).shape[-1] == config.base.dim + front
        assert models.watch.embed(torch.zeros(2, 10, 50)).shape == (2, config.base.dim + front)
        assert models.pose(torch.zeros(2, 22, 50)).shape == (2, config.base.dim + front)


@pytest.mark.parametrize(
    "wrong", ["prior.share=1", "prior.share=-0.1", "prior.power=0", "prior.ridge=0", "prior.a=1"]
)
def test_a_prior_that_makes_no_sense_is_refused_in_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.partition("=")[0].replace(".", r"\.")) as error:
        load_config(PRESETS / "envelope.toml", [wrong])
    assert "\n" not in str(error.value)


def test_watch_is_held_to_base_on_mixtures_too_which_have_no_pose(pose_side, batch) -> None:
    config, mixed = LossConfig(lambda_=0, targets="none", mixed=4.0), 1.5 * batch[0].flip(0)
    teacher = Alignment(bases()[0], config, 0.5)
    watch = WatchEncoder(WatchShape(CHANNELS, 80, CHANNELS + 32, Stage(8, 5, 2), (Stage(8, 5, 2),)))
    losses = watch_losses(watch.eval(), teacher, pose_side, config, *batch, mixed)
    told = F.normalize(teacher.base(mixed).mean(dim=1), dim=1)
    own = F.normalize(watch.embed(mixed), dim=1)
    assert torch.allclose(losses["mixed"], 1 - (told * own).sum(dim=1).mean(), atol=1e-5)
    losses["mixed"].backward()
    assert all(weight.grad is not None for weight in watch.parameters())
    assert all(weight.grad is None for weight in teacher.parameters())


def test_a_vector_of_one_map_is_turned_into_that_of_another_with_the_same_mean() -> None:
    rng = np.random.default_rng(0)
    emg, pose = rng.standard_normal((200, 5)), rng.standard_normal((200, 3))
    maps = [PoseToEmg(3, 5, PoseToEmgConfig()) for _ in range(2)]
    maps[0].fit(emg, pose, np.arange(200) % 4)
    maps[1].fit(emg * np.array([1, 2, 1, 3, 1]), pose, np.arange(200) % 4)
    maps[1].mean.copy_(maps[0].mean)
    x = torch.from_numpy(rng.standard_normal((6, 5)).astype(np.float32))
    turned = maps[0].whitened_as(0.7 * maps[0].emg(x), maps[1])
    assert torch.allclose(turned, 0.7 * maps[1].emg(x), atol=1e-5)
