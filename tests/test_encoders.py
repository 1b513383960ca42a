"""EMBridge's encoders: what may depend on what, and the paper's size."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from embridge.training.align import Alignment
from embridge.training.base import QFormerBase
from embridge.training.config import PRESETS, load_config
from embridge.training.encoders import Attention, Block, PatchEncoder, PoseEmbedder
from embridge.training.method import LossConfig
from embridge.training.mprl import MaskedPoseReconstruction
from embridge.training.qformer import QFormer

SIZE = (32, 4, 4, 64)  # dim, depth, heads, feed-forward
PATCHES = 8


@pytest.fixture(autouse=True)
def reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder(3, 80, 10, *SIZE)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_attention_is_the_softmax_of_scaled_products_and_obeys_its_mask() -> None:
    attention = Attention(8, 1)
    x = torch.randn(2, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    q = attention.query(x)
    k, v = attention.key_value(x).chunk(2, dim=2)
    scores = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(~mask, -torch.inf)
    expected = attention.out(scores.softmax(dim=2) @ v)
    assert torch.allclose(attention(x, mask=mask), expected, atol=1e-6)


def test_heads_do_not_mix_before_the_output() -> None:
    attention = Attention(8, 2)
    nn.init.eye_(attention.out.weight)
    x, context = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    before = attention(x, context)
    with torch.no_grad():
        attention.query.weight[:4] += 1  # the first head
    after = attention(x, context)
    assert torch.equal(before[..., 4:], after[..., 4:])
    assert not torch.allclose(before[..., :4], after[..., :4])


def test_tokens_are_consecutive_patches_of_all_channels(encoder: PatchEncoder) -> None:
    x = torch.randn(2, 3, 80)
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, PATCHES, 30)
    for p in range(PATCHES):
        assert torch.equal(tokens[:, p], x[:, :, 10 * p : 10 * p + 10].flatten(1))


def test_samples_after_the_last_whole_patch_are_left_out() -> None:
    encoder = PatchEncoder(3, 87, 10, *SIZE).eval()
    x = torch.randn(2, 3, 87)
    before = encoder(x)
    x[:, :, 80:] = 9
    assert torch.equal(before, encoder(x))


def test_rms_tokens_are_the_root_mean_square_of_each_channel() -> None:
    encoder = PatchEncoder(3, 80, 10, *SIZE, features="rms")
    x = torch.randn(2, 3, 80)
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, PATCHES, 3)
    rms = x[:, :, 20:30].square().mean(dim=2).sqrt()
    assert torch.allclose(tokens[:, 2], rms, atol=1e-5)
    assert torch.equal(tokens, encoder.tokens(-x))
    assert encoder(x).shape == (2, PATCHES + 1, 32)


@pytest.mark.parametrize(("kind", "axes"), [("channel", (2,)), ("window", (1, 2))])
def test_instance_norm_standardises_each_window(kind: str, axes: tuple[int, ...]) -> None:
    encoder = PatchEncoder(3, 80, 10, *SIZE, instance_norm=kind)
    x = torch.randn(2, 3, 80) * torch.tensor([1.0, 5.0, 20.0])[None, :, None] + 7
    rows = encoder.tokens(x).reshape(2, PATCHES, 3, 10).permute(0, 2, 1, 3).reshape(2, 3, 80)
    assert torch.allclose(rows.mean(axes), torch.zeros(()), atol=1e-5)
    assert torch.allclose(rows.std(axes), torch.ones(()), atol=1e-4)
    assert torch.allclose(encoder(x), encoder(x * 3 + 1), atol=1e-4)


def test_a_block_without_context_leaves_cross_attention_out() -> None:
    block = Block(8, 2, 16, cross=True)
    x, context = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    before, with_context = block(x), block(x, context)
    nn.init.normal_(block.attend_cross.out.weight)
    assert torch.equal(before, block(x))
    assert not torch.allclose(with_context, block(x, context))


def test_encoding_depends_on_the_kept_patches_only(encoder: PatchEncoder) -> None:
    x = torch.randn(2, 3, 80)
    keep = torch.tensor([[0, 3, 5], [7, 1, 2]])
    before = encoder(x, keep)
    assert before.shape == (2, 4, 32)
    hidden = torch.ones(2, PATCHES, dtype=torch.bool).scatter(1, keep, False)
    changed = torch.where(hidden.repeat_interleave(10, 1)[:, None], torch.randn(2, 3, 80), x)
    assert torch.equal(before, encoder(changed, keep))
    shown = torch.where(hidden.repeat_interleave(10, 1)[:, None], x, torch.randn(2, 3, 80))
    assert not torch.allclose(before, encoder(shown, keep))


def test_keeping_everything_in_any_order_is_no_masking(encoder: PatchEncoder) -> None:
    x = torch.randn(2, 3, 80)
    order = torch.stack([torch.randperm(PATCHES) for _ in range(2)])
    whole, shuffled = encoder(x), encoder(x, order)
    expected = torch.gather(whole[:, 1:], 1, order[..., None].expand(-1, -1, 32))
    assert torch.allclose(shuffled[:, 1:], expected, atol=1e-5)
    assert torch.allclose(shuffled[:, 0], whole[:, 0], atol=1e-5)


def test_pose_embeddings_are_unit_vectors_around_the_mean(encoder: PatchEncoder) -> None:
    embedder = PoseEmbedder(encoder, clusters=7)
    pose = torch.randn(6, 3, 80)
    embedder.mean.copy_(torch.randn(32))
    v = embedder(pose)
    assert v.shape == (6, 32)
    assert torch.allclose(v.norm(dim=1), torch.ones(6))
    off_mean = encoder(pose)[:, 0] - embedder.mean
    assert torch.allclose(v, off_mean / off_mean.norm(dim=1, keepdim=True), atol=1e-6)
    assert embedder.centroids.shape == (7, 32)
    assert torch.equal(embedder.features(pose), encoder(pose)[:, 0])


def papers(channels: int) -> PatchEncoder:
    base = load_config(PRESETS / "paper.toml").base
    assert (base.dim, base.depth, base.heads, base.feed_forward) == (256, 4, 8, 1024)
    assert (base.patch_ms, base.queries, base.features) == (100, 16, "waveform")
    return PatchEncoder(channels, 4000, 200, 256, 4, 8, 1024, features=base.features)


def qformer() -> QFormer:
    return QFormer(papers(20), 16)


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (lambda: papers(16), 3_984_640),  # EMG, emg2pose
        (lambda: papers(12), 3_779_840),  # EMG, NinaPro DB2 and DB7
        (lambda: papers(20), 4_189_440),  # pose
        (lambda: nn.ModuleList([qformer(), MaskedPoseReconstruction(256)]), 3_757_056),
        (lambda: Alignment(QFormerBase(papers(16), qformer(), 256), LossConfig(), 0.5), 7_807_489),
    ],
    ids=["emg-16", "emg-12", "pose-20", "qformer-and-g", "trained-in-stage-2"],
)
def test_the_papers_size_has_the_reconstructed_number_of_parameters(
    build: Callable[[], nn.Module], parameters: int
) -> None:
    assert count(build()) == parameters
