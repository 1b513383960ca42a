"""Alignment and its relatives: which parts a method has, and where its gradients go."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embridge.training.align import Alignment, fix_pose_space
from embridge.training.base import BaseEncoder, ProjectedBase, QFormerBase
from embridge.training.distil import watch_losses
from embridge.training.encoders import PatchEncoder, PoseEmbedder
from embridge.training.method import LossConfig
from embridge.training.qformer import QFormer
from embridge.training.supervised import PoseRegression
from embridge.training.watch import Stage, WatchEncoder, WatchShape

SIZE = (32, 2, 4, 64)  # dim, depth, heads, feed-forward
QUERIES = 5


@pytest.fixture(autouse=True)
def reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def pose_side() -> PoseEmbedder:
    embedder = PoseEmbedder(PatchEncoder(3, 80, 10, *SIZE), clusters=6)
    poses = np.random.default_rng(0).standard_normal((40, 3, 80)).astype(np.float32)
    with torch.no_grad():
        fix_pose_space(embedder, poses, LossConfig(), seed=0)
    return embedder


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """EMG (B, C, T) and pose (B, J, T)."""
    return torch.randn(6, 4, 80), torch.randn(6, 3, 80)


def emg_encoder() -> PatchEncoder:
    return PatchEncoder(4, 80, 10, *SIZE)


def with_qformer() -> QFormerBase:
    encoder = emg_encoder()
    return QFormerBase(encoder, QFormer(encoder, QUERIES), encoder.dim)


def reached(module: nn.Module) -> bool:
    return all(w.grad is not None and bool(w.grad.any()) for w in module.parameters())


def untouched(module: nn.Module) -> bool:
    return all(w.grad is None for w in module.parameters())


def test_the_whole_loss_trains_everything_but_the_pose_encoder(pose_side, batch) -> None:
    alignment = Alignment(with_qformer(), LossConfig(), 0.5)
    losses = alignment.losses(pose_side, *batch)
    losses["loss"].backward()
    assert losses.keys() == {"loss", "info_nce", "cascle", "mprl"}
    assert reached(alignment)
    assert untouched(pose_side)


def test_mprl_alone_reaches_the_emg_encoder_through_the_queries(pose_side, batch) -> None:
    base = with_qformer()
    alignment = Alignment(base, LossConfig(), 0.5)
    alignment.losses(pose_side, *batch)["mprl"].backward()
    assert reached(base.encoder)
    assert alignment.mprl is not None
    assert reached(alignment.mprl)
    assert untouched(base.project)
    assert untouched(pose_side)


def test_a_weight_of_zero_leaves_mprl_out(pose_side, batch) -> None:
    alignment = Alignment(with_qformer(), LossConfig(lambda_=0, targets="none"), 0.5)
    assert alignment.mprl is None
    assert alignment.losses(pose_side, *batch).keys() == {"loss", "info_nce"}


def test_the_loss_is_the_weighted_sum_of_its_terms(pose_side, batch) -> None:
    alignment = Alignment(with_qformer(), LossConfig(alpha=0.3, lambda_=2.0), 0.5)
    terms = alignment.losses(pose_side, *batch)
    expected = terms["info_nce"] + 0.3 * terms["cascle"] + 2.0 * terms["mprl"]
    assert torch.allclose(terms["loss"], expected)


@pytest.mark.parametrize("config", [LossConfig(lambda_=0), LossConfig(lambda_=0, symmetric=True)])
def test_a_projection_is_trained_without_touching_the_pose_encoder(
    pose_side, batch, config: LossConfig
) -> None:
    alignment = Alignment(ProjectedBase(emg_encoder(), SIZE[0]), config, 0.5)
    alignment.losses(pose_side, *batch)["loss"].backward()
    assert reached(alignment)
    assert untouched(pose_side)


def test_each_pose_may_be_met_by_its_own_query(pose_side, batch) -> None:
    """InfoNCE over the largest cosine of a window's queries with each pose, window by window."""
    alignment = Alignment(with_qformer(), LossConfig(query="each", tau=0.2), 0.5)
    losses = alignment.losses(pose_side, *batch)
    queries, v = alignment.base(batch[0]), pose_side(batch[1])
    logs = []
    for i in range(6):
        cosines = torch.stack([max(query @ v[j] for query in queries[i]) for j in range(6)])
        logs.append((cosines / 0.2).log_softmax(dim=0)[i])
    assert torch.allclose(losses["info_nce"], -torch.stack(logs).mean(), atol=1e-5)
    losses["loss"].backward()
    assert reached(alignment)
    assert untouched(pose_side)


def test_the_pose_space_is_centred_and_has_its_clusters_only_for_cascle(pose_side) -> None:
    assert torch.allclose(pose_side.centroids.norm(dim=1), torch.ones(6), atol=1e-5)
    poses = np.random.default_rng(0).standard_normal((40, 3, 80)).astype(np.float32)
    with torch.no_grad():
        centred = pose_side.features(torch.from_numpy(poses)) - pose_side.mean
        assert torch.allclose(centred.mean(dim=0), torch.zeros(32), atol=1e-5)
        other = PoseEmbedder(pose_side.encoder, clusters=6)
        fix_pose_space(other, poses, LossConfig(targets="softclip"), seed=0)
    assert torch.equal(other.mean, pose_side.mean)
    assert not bool(other.centroids.any())


def test_each_head_gives_unit_vectors_that_depend_on_their_own_window(batch) -> None:
    emg = batch[0]
    for base, count in (
        (with_qformer(), QUERIES),
        (ProjectedBase(emg_encoder(), SIZE[0]), 1),
        (BaseEncoder(emg_encoder()), 1),
    ):
        found = base.eval()(emg)
        assert found.shape == (6, count, 32)
        assert torch.allclose(found.norm(dim=2), torch.ones(6, count))
        assert torch.allclose(base(emg[1:2]), found[1:2], atol=1e-5)


def test_features_are_the_mean_query_or_cls_before_projection(batch) -> None:
    emg = batch[0]
    with_queries, projected, alone = (
        with_qformer(),
        ProjectedBase(emg_encoder(), SIZE[0]),
        BaseEncoder(emg_encoder()),
    )
    queries = with_queries.qformer(with_queries.encoder(emg))
    assert torch.allclose(with_queries.features(emg), queries.mean(dim=1))
    for base in (projected, alone):
        assert torch.equal(base.features(emg), base.encoder(emg)[:, 0])
    assert torch.equal(
        projected(emg)[:, 0], F.normalize(projected.project(projected.features(emg)), dim=-1)
    )


def test_regression_is_the_mean_absolute_error_of_window_and_patch_means(batch) -> None:
    emg, pose = batch
    module = PoseRegression(BaseEncoder(emg_encoder()), 3)
    nn.init.zeros_(module.out.weight)
    nn.init.zeros_(module.out.bias)
    values = [pose[b, j].mean() for b in range(6) for j in range(3)]
    values += [
        pose[b, j, 10 * p : 10 * p + 10].mean()
        for b in range(6)
        for j in range(3)
        for p in range(8)
    ]
    assert torch.allclose(module(emg, pose), torch.stack(values).abs().mean())


def test_regression_predicts_each_patch_from_its_own_token(batch) -> None:
    """The targets lie in the order of the tokens, [CLS] first."""
    module = PoseRegression(BaseEncoder(emg_encoder()), 3)
    emg, pose = batch
    predicted = module.out(module.base.encoder(emg))
    window, patch = pose.mean(dim=2), pose[:, :, 20:30].mean(dim=2)
    parts = torch.stack(
        [
            F.l1_loss(predicted[:, 1 + p], pose[:, :, 10 * p : 10 * p + 10].mean(dim=2))
            for p in range(8)
        ]
    )
    assert torch.allclose(parts[2], F.l1_loss(predicted[:, 3], patch))
    expected = (parts.sum() + F.l1_loss(predicted[:, 0], window)) / 9
    assert torch.allclose(module(emg, pose), expected)


@pytest.mark.parametrize(
    ("config", "terms"),
    [
        (LossConfig(), {"info_nce", "cascle"}),
        (LossConfig(lambda_=0, symmetric=True, targets="none"), {"info_nce"}),
        (LossConfig(lambda_=0, targets="softclip"), {"info_nce", "softclip"}),
    ],
)
def test_watch_follows_the_methods_contrast_and_trains_itself_alone(
    pose_side, batch, config: LossConfig, terms: set[str]
) -> None:
    base = with_qformer() if config.lambda_ else ProjectedBase(emg_encoder(), SIZE[0])
    teacher = Alignment(base, config, 0.5)
    watch = WatchEncoder(WatchShape(4, 80, 32, Stage(8, 5, 2), (Stage(8, 5, 2),)))
    losses = watch_losses(watch, teacher, pose_side, config, *batch)
    losses["loss"].backward()
    assert losses.keys() == {"loss", "direct", "distil", "length", "unsteady", *terms}
    assert all(weight.grad is not None for weight in watch.parameters())
    assert untouched(teacher)
    assert untouched(pose_side)
