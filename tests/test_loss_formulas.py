"""Each loss against its formula, written out in numpy with loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from embridge.training import losses as L
from embridge.training.align import contrastive_terms, weighted
from embridge.training.method import LossConfig

Array = NDArray[np.float64]
B, D, CENTROIDS, TAU, TAU_SOFT = 6, 5, 7, 0.2, 0.3


def unit(*shape: int, seed: int) -> Tensor:
    rows = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def q_of(u: Array, v: Array, tau: float) -> Array:
    q = np.zeros((len(u), len(v)))
    for i in range(len(u)):
        for j in range(len(v)):
            q[i, j] = np.exp(u[i] @ v[j] / tau) / sum(np.exp(u[i] @ w / tau) for w in v)
    return q


def soft_cross_entropy(y: Array, q: Array) -> float:
    n = len(q)
    return -sum(y[i, j] * np.log(q[i, j]) for i in range(n) for j in range(n) if y[i, j]) / n


def one_way(q: Array, smoothing: float = 0) -> float:
    y = (1 - smoothing) * np.eye(len(q)) + smoothing / len(q)
    return soft_cross_entropy(y, q)


def cascle_targets(v: Array, centroids: Array, top: int, tau: float) -> Array:
    """Steps 2 to 5 of CASCLe."""
    sparse = np.zeros((len(v), len(centroids)))
    for i, row in enumerate(v @ centroids.T):
        for c in sorted(range(len(row)), key=lambda c: -row[c])[:top]:
            sparse[i, c] = row[c]
    y = np.zeros((len(v), len(v)))
    for i in range(len(v)):
        others = [j for j in range(len(v)) if j != i]
        weight = {
            j: np.exp(
                sparse[i] @ sparse[j] / np.linalg.norm(sparse[i]) / np.linalg.norm(sparse[j]) / tau
            )
            for j in others
        }
        for j in others:
            y[i, j] = weight[j] / sum(weight.values())
    return y


def softclip_targets(v: Array, tau: float) -> Array:
    weight = np.exp(v @ v.T / tau)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """u, v: (B, D); centroids: (N_c, D)."""
    return unit(B, D, seed=0), unit(B, D, seed=1), unit(CENTROIDS, D, seed=2)


def terms(batch: tuple[Tensor, Tensor, Tensor], **flags: object) -> dict[str, float]:
    """The loss and its terms, by the trainer's own assembly."""
    config = LossConfig(**{"top_clusters": 3, "tau_soft": TAU_SOFT, "alpha": 0.7} | flags)
    u, v, centroids = batch
    losses = weighted(contrastive_terms(u @ v.T, v, TAU, centroids, config))
    return {name: float(value) for name, value in losses.items()}


def test_info_nce_in_one_direction(batch) -> None:
    u, v, _ = (x.numpy() for x in batch)
    found = terms(batch, targets="none")
    assert found == {"loss": pytest.approx(one_way(q_of(u, v, TAU))), "info_nce": found["loss"]}


def test_symmetric_info_nce_is_the_mean_of_both_directions(batch) -> None:
    u, v, _ = (x.numpy() for x in batch)
    expected = (one_way(q_of(u, v, TAU)) + one_way(q_of(v, u, TAU))) / 2
    assert terms(batch, targets="none", symmetric=True)["loss"] == pytest.approx(expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_label_smoothing_softens_the_targets_of_info_nce(batch, symmetric: bool) -> None:
    u, v, _ = (x.numpy() for x in batch)
    ways = [one_way(q_of(u, v, TAU), 0.1), one_way(q_of(v, u, TAU), 0.1)]
    expected = np.mean(ways) if symmetric else ways[0]
    found = terms(batch, targets="label-smoothing", symmetric=symmetric)
    assert found["loss"] == pytest.approx(expected)


def test_label_smoothing_is_torchs(batch) -> None:
    u, v, _ = batch
    expected = torch.nn.functional.cross_entropy(
        u @ v.T / TAU, torch.arange(B), label_smoothing=0.1
    )
    assert terms(batch, targets="label-smoothing")["loss"] == pytest.approx(float(expected))


def test_cascle_is_added_to_info_nce_by_its_weight(batch) -> None:
    u, v, centroids = (x.numpy() for x in batch)
    q = q_of(u, v, TAU)
    soft = soft_cross_entropy(cascle_targets(v, centroids, 3, TAU_SOFT), q)
    found = terms(batch, targets="cascle")
    assert found["cascle"] == pytest.approx(soft)
    assert found["info_nce"] == pytest.approx(one_way(q))
    assert found["loss"] == pytest.approx(one_way(q) + 0.7 * soft)


def test_cascle_over_the_others_alone(batch) -> None:
    u, v, centroids = (x.numpy() for x in batch)
    q = q_of(u, v, TAU)
    np.fill_diagonal(q, 0)
    q /= q.sum(axis=1, keepdims=True)
    soft = soft_cross_entropy(cascle_targets(v, centroids, 3, TAU_SOFT), q)
    assert terms(batch, targets="cascle", renormalise=True)["cascle"] == pytest.approx(soft)


def test_softclip_takes_its_targets_from_single_poses(batch) -> None:
    u, v, _ = (x.numpy() for x in batch)
    q = q_of(u, v, TAU)
    soft = soft_cross_entropy(softclip_targets(v, TAU_SOFT), q)
    found = terms(batch, targets="softclip")
    assert found["softclip"] == pytest.approx(soft)
    assert found["loss"] == pytest.approx(one_way(q) + 0.7 * soft)


@pytest.mark.parametrize(
    "flags", [{"targets": "cascle", "renormalise": True}, {"targets": "softclip"}, {}]
)
def test_every_window_gets_a_finite_gradient(batch, flags: dict[str, object]) -> None:
    u, v, centroids = batch
    u = u.clone().requires_grad_()
    weighted(contrastive_terms(u @ v.T, v, TAU, centroids, LossConfig(**flags)))["loss"].backward()
    assert u.grad is not None
    assert bool(u.grad.isfinite().all())
    assert bool((u.grad.abs().sum(dim=1) > 0).all())


TARGETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cascle": lambda v, centroids: L.community_affinity(v, centroids, 3, TAU_SOFT),
    "softclip": lambda v, _: L.instance_affinity(v, TAU_SOFT),
    "label-smoothing": lambda v, _: L.smoothed_labels(v @ v.T, 0.1),
}


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 20), name=st.sampled_from([*TARGETS]))
def test_targets_are_probabilities(seed: int, size: int, name: str) -> None:
    y = TARGETS[name](unit(size, D, seed=seed), unit(CENTROIDS, D, seed=seed + 1))
    assert torch.allclose(y.sum(dim=1), torch.ones(size, dtype=y.dtype))
    assert bool((y >= 0).all())
    assert bool((y.diagonal() == 0).all()) == (name == "cascle")
