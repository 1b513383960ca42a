"""The Q-Former and MPRL: what may depend on what, and what it is judged on."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embridge.training.encoders import PatchEncoder
from embridge.training.mprl import MaskedPoseReconstruction
from embridge.training.qformer import QFormer

SIZE = (32, 4, 4, 64)  # dim, depth, heads, feed-forward
PATCHES, QUERIES = 8, 5
HIDDEN = torch.tensor([[1, 0, 1, 0, 1, 0, 0, 1]] * 3 + [[0, 1, 1, 0, 0, 1, 1, 0]]).bool()  # B P


@pytest.fixture(autouse=True)
def reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder(3, 80, 10, *SIZE)


@pytest.fixture
def qformer(encoder: PatchEncoder) -> QFormer:
    return QFormer(encoder, QUERIES)


@pytest.fixture
def mprl() -> MaskedPoseReconstruction:
    """With weights that matter: the mask token starts at zero."""
    mprl = MaskedPoseReconstruction(32)
    nn.init.normal_(mprl.mask_token)
    return mprl


def watched(module: nn.Module) -> list[Tensor]:
    """The outputs `module` will have."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    return seen


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
    mprl: MaskedPoseReconstruction,
    qformer: QFormer,
    queries: Tensor,
    patches: Tensor,
    position: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """MPRL with `HIDDEN`: loss, queries' outputs (B, M, D), rebuilt (B, P, D)."""
    outputs, rebuilt = watched(qformer.blocks[-1]), watched(mprl.g)
    loss = mprl(qformer, queries, patches, position, HIDDEN)
    return loss, outputs[-1][:, :QUERIES], rebuilt[-1]


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, M, D), pose patches (B, P, D), position (1, P, D)."""
    return torch.randn(4, QUERIES, 32), torch.randn(4, PATCHES, 32), torch.randn(1, PATCHES, 32)


def test_queries_cannot_read_pose_tokens(mprl, qformer, tokens) -> None:
    queries, patches, position = tokens
    _, before, rebuilt_before = second_pass(mprl, qformer, queries, patches, position)
    _, after, rebuilt_after = second_pass(mprl, qformer, queries, patches + 1, position)
    assert torch.equal(before, after)
    assert not torch.allclose(rebuilt_before, rebuilt_after)


def test_masked_pose_tokens_do_not_leak_and_visible_ones_and_queries_count(
    mprl, qformer, tokens
) -> None:
    queries, patches, position = tokens
    other, masked = torch.randn(4, PATCHES, 32), HIDDEN[..., None]

    def rebuilt(queries: Tensor, patches: Tensor) -> Tensor:
        return second_pass(mprl, qformer, queries, patches, position)[2]

    before = rebuilt(queries, patches)
    assert torch.equal(before, rebuilt(queries, torch.where(masked, other, patches)))
    assert not torch.allclose(before, rebuilt(queries, torch.where(masked, patches, other)))
    assert not torch.allclose(before, rebuilt(torch.randn_like(queries), patches))


def test_the_second_pass_reads_no_emg(mprl, qformer, tokens) -> None:
    before = second_pass(mprl, qformer, *tokens)[0]
    nn.init.normal_(qformer.blocks[0].attend_cross.out.weight)
    assert torch.equal(before, second_pass(mprl, qformer, *tokens)[0])


def test_masked_slots_are_told_apart_by_their_position(mprl, qformer, tokens) -> None:
    _, _, rebuilt = second_pass(mprl, qformer, *tokens)
    assert float(torch.pdist(rebuilt[0][HIDDEN[0]]).min()) > 1e-3


def test_mprl_is_the_mean_square_error_of_the_masked_tokens(mprl, qformer, tokens) -> None:
    loss, _, rebuilt = second_pass(mprl, qformer, *tokens)
    patches = tokens[1]
    errors = [
        np.sum((rebuilt[b, p].numpy() - patches[b, p].numpy()) ** 2) / 32
        for b in range(4)
        for p in range(PATCHES)
        if HIDDEN[b, p]
    ]
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_the_second_passes_output_is_self_attention_over_both(qformer, tokens) -> None:
    """Block by block; queries do not read poses."""
    queries, patches, _ = tokens
    allowed = torch.ones(QUERIES + PATCHES, QUERIES + PATCHES, dtype=torch.bool)
    allowed[:QUERIES, QUERIES:] = False
    z = torch.cat([queries, patches], dim=1)
    for block in qformer.blocks:
        z = z + block.attend_self(block.norm_self(z), mask=allowed)
        z = z + block.mlp(block.norm_mlp(z))
    expected = qformer.norm(z)[:, QUERIES:]
    assert torch.allclose(qformer.beside(queries, patches), expected, atol=1e-6)
