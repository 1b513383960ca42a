"""EMBridge's encoders: what may depend on what, where gradients go, and the paper's size."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from embridge.training.config import PRESETS, load_config
from embridge.training.encoders import (
    Attention,
    BaseEncoder,
    Block,
    MaskedAutoencoder,
    PatchEncoder,
    PoseEmbedder,
    QFormer,
)

SIZE = (32, 4, 4, 64)  # dim, depth, heads, feed-forward
PATCHES, QUERIES = 8, 5


@pytest.fixture(autouse=True)
def reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder(3, 80, 10, *SIZE)


@pytest.fixture
def qformer(encoder: PatchEncoder) -> QFormer:
    """With weights that matter: the mask token starts at zero."""
    qformer = QFormer(encoder, QUERIES)
    nn.init.normal_(qformer.mask_token)
    return qformer


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def watched(module: nn.Module) -> list[Tensor]:
    """The outputs `module` will have."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    return seen


def masks_of(batch: int, chosen: int, seed: int) -> Tensor:
    """(B, P) bool: what an autoencoder or MPRL hides after manual_seed(seed), first `chosen`."""
    torch.manual_seed(seed)
    order = torch.rand(batch, PATCHES).argsort(dim=1)
    return torch.zeros(batch, PATCHES, dtype=torch.bool).scatter(1, order[:, :chosen], True)


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


def test_power_tokens_are_the_log_power_of_each_channel() -> None:
    encoder = PatchEncoder(3, 80, 10, *SIZE, features="power")
    x = torch.randn(2, 3, 80)
    tokens = encoder.tokens(x)
    assert tokens.shape == (2, PATCHES, 3)
    power = x[:, :, 20:30].square().mean(dim=2)
    assert torch.allclose(tokens[:, 2], torch.log(power + 1e-3))
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


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_autoencoder_is_judged_on_the_masked_patches_only(
    encoder: PatchEncoder, ratio: float
) -> None:
    """A decoder that always says zero is off by the mean square of what was masked."""
    autoencoder = MaskedAutoencoder(encoder, 16, ratio)
    nn.init.zeros_(autoencoder.out.weight)
    nn.init.zeros_(autoencoder.out.bias)
    x = torch.randn(4, 3, 80)
    visible = masks_of(4, int(PATCHES * (1 - ratio)), seed=3)
    expected = encoder.tokens(x)[~visible].square().mean()
    torch.manual_seed(3)
    assert torch.allclose(autoencoder(x), expected)


def test_what_the_autoencoder_rebuilds_depends_on_the_visible_patches_only(
    encoder: PatchEncoder,
) -> None:
    autoencoder = MaskedAutoencoder(encoder, 16, 0.5)
    rebuilt = watched(autoencoder.out)
    x = torch.randn(4, 3, 80)
    visible = masks_of(4, 4, seed=3).repeat_interleave(10, 1)[:, None]
    for changed in (
        x,
        torch.where(visible, x, torch.randn(4, 3, 80)),
        torch.where(visible, torch.randn(4, 3, 80), x),
    ):
        torch.manual_seed(3)
        autoencoder(changed)
    assert torch.equal(rebuilt[0], rebuilt[1])
    assert not torch.allclose(rebuilt[0], rebuilt[2])


def test_the_autoencoder_trains_cls_and_every_weight(encoder: PatchEncoder) -> None:
    autoencoder = MaskedAutoencoder(encoder, 16, 0.5)
    autoencoder(torch.randn(4, 3, 80)).backward()
    assert all(
        weight.grad is not None and bool(weight.grad.any()) for weight in autoencoder.parameters()
    )


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


def test_every_other_block_of_the_qformer_reads_the_emg(qformer: QFormer) -> None:
    assert [block.attend_cross is not None for block in qformer.blocks] == [True, False] * 2


def test_start_from_copies_what_the_pose_encoder_has_and_leaves_cross_attention(
    qformer: QFormer,
) -> None:
    pretrained = PatchEncoder(3, 80, 10, *SIZE)
    before = {name: weight.clone() for name, weight in qformer.state_dict().items()}
    qformer.start_from(pretrained)
    after, source = qformer.state_dict(), pretrained.state_dict()
    for name, weight in after.items():
        if name.startswith("blocks") and "cross" not in name:
            assert torch.equal(weight, source[name]), name
        else:
            assert torch.equal(weight, before[name]), name
    assert not torch.equal(
        after["blocks.0.attend_self.query.weight"], before["blocks.0.attend_self.query.weight"]
    )
    with torch.no_grad():
        pretrained.blocks[0].mlp[0].weight.zero_()
    assert bool(qformer.blocks[0].mlp[0].weight.any()), "a copy, not a shared weight"


def second_pass(
    qformer: QFormer, queries: Tensor, patches: Tensor, position: Tensor, ratio: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """MPRL with the masks of seed 3: loss, queries' outputs (B, M, D), rebuilt (B, P, D)."""
    outputs, rebuilt = watched(qformer.blocks[-1]), watched(qformer.rebuild)
    torch.manual_seed(3)
    loss = qformer.masked_pose_loss(queries, patches, position, ratio)
    return loss, outputs[-1][:, :QUERIES], rebuilt[-1]


def test_queries_cannot_read_pose_tokens(qformer: QFormer) -> None:
    queries, position = torch.randn(4, QUERIES, 32), torch.randn(1, PATCHES, 32)
    patches = torch.randn(4, PATCHES, 32)
    _, before, rebuilt_before = second_pass(qformer, queries, patches, position)
    _, after, rebuilt_after = second_pass(qformer, queries, patches + 1, position)
    assert torch.equal(before, after)
    assert not torch.allclose(rebuilt_before, rebuilt_after)


def test_masked_pose_tokens_do_not_leak_and_visible_ones_and_queries_count(
    qformer: QFormer,
) -> None:
    queries, position = torch.randn(4, QUERIES, 32), torch.randn(1, PATCHES, 32)
    patches, other = torch.randn(4, PATCHES, 32), torch.randn(4, PATCHES, 32)
    masked = masks_of(4, 4, seed=3)[..., None]
    _, _, before = second_pass(qformer, queries, patches, position)
    _, _, hidden = second_pass(qformer, queries, torch.where(masked, other, patches), position)
    _, _, shown = second_pass(qformer, queries, torch.where(masked, patches, other), position)
    _, _, asked = second_pass(qformer, torch.randn_like(queries), patches, position)
    assert torch.equal(before, hidden)
    assert not torch.allclose(before, shown)
    assert not torch.allclose(before, asked)


def test_masked_slots_are_told_apart_by_their_position(qformer: QFormer) -> None:
    queries, position = torch.randn(4, QUERIES, 32), torch.randn(1, PATCHES, 32)
    _, _, rebuilt = second_pass(qformer, queries, torch.randn(4, PATCHES, 32), position)
    slots = rebuilt[0][masks_of(4, 4, seed=3)[0]]
    assert float(torch.pdist(slots).min()) > 1e-3


def test_mprl_is_the_mean_square_error_of_the_masked_tokens(qformer: QFormer) -> None:
    queries, position = torch.randn(4, QUERIES, 32), torch.randn(1, PATCHES, 32)
    patches = torch.randn(4, PATCHES, 32)
    loss, _, rebuilt = second_pass(qformer, queries, patches, position, ratio=0.25)
    masked = masks_of(4, 2, seed=3)
    assert torch.allclose(loss, (rebuilt - patches)[masked].square().mean())


def test_mprl_reaches_the_emg_encoder_and_not_the_pose_encoder(encoder: PatchEncoder) -> None:
    base = BaseEncoder(PatchEncoder(6, 80, 10, *SIZE), QFormer(encoder, QUERIES))
    with torch.no_grad():
        patches = encoder.embed_patch(encoder.tokens(torch.randn(4, 3, 80)))
    hidden, _ = base.queries(torch.randn(4, 6, 80))
    position = encoder.position[:, 1:].detach()
    base.qformer.masked_pose_loss(hidden, patches, position, 0.5).backward()
    emg_grads = [weight.grad for weight in base.encoder.parameters()]
    assert all(grad is not None and bool(grad.any()) for grad in emg_grads)
    assert all(weight.grad is None for weight in encoder.parameters())


def test_base_gives_unit_queries_that_depend_on_their_own_window(encoder: PatchEncoder) -> None:
    base = BaseEncoder(encoder, QFormer(encoder, QUERIES)).eval()
    emg = torch.randn(4, 3, 80)
    found = base(emg)
    assert found.shape == (4, QUERIES, 32)
    assert torch.allclose(found.norm(dim=2), torch.ones(4, QUERIES))
    assert torch.allclose(base(emg[1:2]), found[1:2], atol=1e-5)
    hidden, projected = base.queries(emg)
    assert hidden.shape == found.shape
    assert torch.equal(projected, found)


def papers(channels: int) -> PatchEncoder:
    base = load_config(PRESETS / "paper.toml").base
    assert (base.dim, base.depth, base.heads, base.feed_forward) == (256, 4, 8, 1024)
    assert (base.patch_ms, base.queries, base.features) == (100, 16, "waveform")
    return PatchEncoder(channels, 4000, 200, 256, 4, 8, 1024, features=base.features)


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (lambda: papers(16), 3_984_640),  # EMG, emg2pose
        (lambda: papers(12), 3_779_840),  # EMG, NinaPro DB2 and DB7
        (lambda: papers(20), 4_189_440),  # pose
        (lambda: QFormer(papers(20), 16), 3_757_056),
        # Trained in stage 2, together with the temperature: 7,807,489.
        (lambda: BaseEncoder(papers(16), QFormer(papers(20), 16)), 7_807_488),
    ],
    ids=["emg-16", "emg-12", "pose-20", "qformer", "base"],
)
def test_the_papers_size_has_the_reconstructed_number_of_parameters(
    build: Callable[[], nn.Module], parameters: int
) -> None:
    assert count(build()) == parameters
