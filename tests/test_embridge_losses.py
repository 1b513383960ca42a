"""The losses against small cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embridge.training.losses import (
    best_query,
    cascle,
    community_affinity,
    info_nce,
    log_match,
    match_distillation,
    unsteadiness,
)

UNIT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])  # three poses in the plane


def random_unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_best_query_is_the_one_closest_to_its_own_pose() -> None:
    queries = torch.tensor(
        [[[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], [[-1.0, 0.0], [0.0, -1.0], [0.8, 0.6]]]
    )
    found = best_query(queries, torch.tensor([[0.6, 0.8], [-0.6, -0.8]]))
    assert torch.equal(found, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_only_the_best_query_gets_a_gradient() -> None:
    queries = random_unit(4, 5, 8).requires_grad_()
    poses = random_unit(4, 8, seed=1)
    best_query(queries, poses).sum().backward()
    assert queries.grad is not None
    touched = queries.grad.abs().sum(dim=2) > 0
    best = torch.einsum("bmd,bd->bm", queries.detach(), poses).argmax(dim=1)
    assert torch.equal(touched, F.one_hot(best, 5).bool())


def test_log_match_is_the_log_softmax_over_the_poses() -> None:
    log_q = log_match(UNIT[:1] @ UNIT.T, 0.5)
    expected = np.exp(np.array([1.0, 0.0, 0.6]) / 0.5)
    assert log_q[0].exp().numpy() == pytest.approx(expected / expected.sum())


def test_info_nce_of_two_windows_worked_out_by_hand() -> None:
    """u = v, cosines 1 and 0: each row is log(e^(1/tau) / (e^(1/tau) + 1))."""
    for tau in (1.0, 0.1):
        loss = info_nce(log_match(UNIT[:2] @ UNIT[:2].T, tau))
        assert float(loss) == pytest.approx(math.log1p(math.exp(-1 / tau)), abs=1e-6)


def test_info_nce_is_the_cross_entropy_with_the_own_pose_and_chance_is_log_b() -> None:
    u, v = random_unit(6, 4), random_unit(6, 4, seed=1)
    expected = F.cross_entropy(u @ v.T / 0.2, torch.arange(6))
    assert torch.allclose(info_nce(log_match(u @ v.T, 0.2)), expected)
    same = UNIT[:1].expand(8, 2)
    assert float(info_nce(log_match(same @ same.T, 0.2))) == pytest.approx(math.log(8))


def test_affinity_of_three_poses_worked_out_by_hand() -> None:
    """Centroids on the axes, k_c = 1: rows (1, 0), (0, 1), (0, .8) -> cosines 0, 0, 1."""
    affinity = community_affinity(UNIT, torch.eye(2), top=1, tau=0.5)
    e = math.exp(2.0)
    expected = [[0, 0.5, 0.5], [1 / (1 + e), 0, e / (1 + e)], [1 / (1 + e), e / (1 + e), 0]]
    assert affinity.numpy() == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("top", [1, 3, 50])
def test_affinity_rows_sum_to_one_with_a_zero_diagonal(top: int) -> None:
    """`top` may exceed the number of centroids: then all of them count."""
    affinity = community_affinity(random_unit(12, 6), random_unit(8, 6, seed=1), top, 0.1)
    assert torch.allclose(affinity.sum(dim=1), torch.ones(12))
    assert torch.equal(affinity.diagonal(), torch.zeros(12))
    assert bool((affinity >= 0).all())


def test_identical_poses_get_the_most() -> None:
    poses = random_unit(10, 6)
    poses[7] = poses[2]
    affinity = community_affinity(poses, random_unit(8, 6, seed=1), 3, 0.1)
    assert int(affinity[2].argmax()) == 7
    assert int(affinity[7].argmax()) == 2


def test_cascle_worked_out_by_hand() -> None:
    """Two windows: each one's whole target is the other, so the loss is - log q of the other."""
    log_q = log_match(UNIT[:2] @ UNIT[:2].T, 1.0)
    affinity = community_affinity(UNIT[:2], torch.eye(2), 1, 0.1)
    assert torch.equal(affinity, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert float(cascle(log_q, affinity)) == pytest.approx(math.log(1 + math.e), abs=1e-6)


def test_cascle_is_least_where_the_match_equals_the_affinity() -> None:
    affinity = community_affinity(random_unit(6, 4), random_unit(5, 4, seed=1), 3, 0.2)
    entropy = -torch.special.xlogy(affinity, affinity).sum(dim=1).mean()
    almost = (affinity + 1e-9).log()
    assert float(cascle(almost, affinity)) == pytest.approx(float(entropy), abs=1e-5)
    other = log_match(random_unit(6, 4, seed=2) @ random_unit(6, 4).T, 0.2)
    assert float(cascle(other, affinity)) > float(entropy)


def test_distillation_is_zero_where_the_student_is_the_teacher_and_positive_elsewhere() -> None:
    scores = random_unit(6, 6)
    same = match_distillation(F.log_softmax(scores / 0.1, dim=1), scores, 0.1)
    assert float(same) == pytest.approx(0, abs=1e-6)
    other = match_distillation(F.log_softmax(-scores / 0.1, dim=1), scores, 0.1)
    assert float(other) > 0.1


def test_distillation_is_the_kullback_leibler_divergence_per_window() -> None:
    teacher = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    student = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    p = math.e / (1 + math.e)
    first = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    second = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    expected = (first + second) / 2
    assert float(match_distillation(student, teacher, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_unsteadiness_is_the_mean_of_one_minus_cosine() -> None:
    clean = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(unsteadiness(clean, 3 * clean)) == pytest.approx(0, abs=1e-6)
    turned = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert float(unsteadiness(clean, turned)) == pytest.approx(0.5, abs=1e-6)
