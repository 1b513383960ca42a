"""The contrastive losses of EMBridge and of its baselines, and what `watch` is distilled by.

L = InfoNCE + alpha CASCLe + lambda MPRL (Cui et al., "EMBridge", ICLR 2026; MPRL: mprl.py).
The paper's text was not at hand: "fact" marks what its readers' notes state, "ours" what fills a
gap. Each loss is one cross-entropy with targets y over the poses of the batch,

    L(y) = - 1/B sum_i sum_j y_ij log q_ij,    q_ij = exp(u_i.v_j / tau) / sum_k exp(u_i.v_k / tau)

    InfoNCE            y_ij = [i = j]                                       fact
    label smoothing    y_ij = (1 - eps) [i = j] + eps / B                   fact: eps 0.1
    CASCLe             y from clusters of poses, y_ii = 0                   fact
    SoftCLIP           y_ij = softmax_j(v_i.v_j / tau_s)                    ours
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from embridge.training.precision import in_fp32


@in_fp32
def best_query(queries: Tensor, poses: Tensor) -> Tensor:
    """u_i: the query of window i that is closest to its own pose (fact).

    queries: (B, M, D), poses: (B, D), both unit length -> (B, D)
    """
    best = torch.einsum("bmd,bd->bm", queries, poses).argmax(dim=1)
    return queries[torch.arange(len(queries), device=queries.device), best]


@in_fp32
def closest_query(queries: Tensor, poses: Tensor) -> Tensor:
    """Cosine of each window's closest query to each pose: (B, M, D), (N, D) -> (B, N)."""
    return torch.einsum("bmd,nd->bmn", queries, poses).amax(dim=1)


@in_fp32
def cosines(u: Tensor, v: Tensor) -> Tensor:
    """u_i.v_j: (B, D), (N, D), unit length -> (B, N)."""
    return u @ v.T


@in_fp32
def log_match(cosine: Tensor, tau: Tensor | float) -> Tensor:
    """log q: (B, B), log-softmax over poses of cosine / tau. cosine: (B, B), row i of u_i."""
    return F.log_softmax(cosine / tau, dim=1)


def log_match_others(log_q: Tensor) -> Tensor:
    """log q over j != i: (B, B), each row normalised again without its own pose; diagonal 0.

    Ours, an option: CASCLe as written keeps the own pose in q's denominator.
    """
    own = _own(log_q)
    return log_q.masked_fill(own, -torch.inf).log_softmax(dim=1).masked_fill(own, 0)


def cross_entropy(log_q: Tensor, y: Tensor) -> Tensor:
    """- 1/B sum_i sum_j y_ij log q_ij. log_q, y: (B, B)."""
    return -(y * log_q).sum(dim=1).mean()


def info_nce(log_q: Tensor) -> Tensor:
    """- 1/B sum_i log q_ii, from EMG to pose: the direction that is left with a frozen pose side.

    Fact; CPEP averages this and the other direction, `info_nce(log_match(cosine.T, tau))`.
    """
    return -log_q.diagonal().mean()


def smoothed_labels(log_q: Tensor, smoothing: float) -> Tensor:
    """y of InfoNCE with label smoothing (B, B): (1 - eps) [i = j] + eps / B.

    Fact: eps = 0.1, in CPEP-LS, Q-Former-LS and in place of CASCLe. Ours: the uniform part counts
    the own pose too, as in Szegedy et al. 2016.
    """
    return (1 - smoothing) * _own(log_q).to(log_q.dtype) + smoothing / len(log_q)


def cascle(log_q: Tensor, affinity: Tensor) -> Tensor:
    """Community-aware soft contrastive loss (fact): - 1/B sum_i sum_{j != i} y_ij log q_ij.

    affinity: (B, B) y of `community_affinity`
    """
    return cross_entropy(log_q, affinity)


@in_fp32
def community_affinity(poses: Tensor, centroids: Tensor, top: int, tau: float) -> Tensor:
    """Soft targets of CASCLe (fact): y_ij = exp(S_ij / tau_s) / sum_{k != i} exp(S_ik / tau_s).

    S = cosine of sparse rows: each pose's cosines to its k_c nearest centroids, the others zero.
    poses: (B, D), centroids: (N_c, D), unit length -> (B, B), rows sum to 1, zero diagonal
    """
    to_centroids = poses @ centroids.T  # B N_c
    nearest = to_centroids.topk(min(top, len(centroids)), dim=1)
    sparse = torch.zeros_like(to_centroids).scatter(1, nearest.indices, nearest.values)
    sparse = F.normalize(sparse, dim=1)
    affinity = sparse @ sparse.T  # B B
    return (affinity / tau).masked_fill(_own(affinity), -torch.inf).softmax(dim=1)


@in_fp32
def instance_affinity(poses: Tensor, tau: float) -> Tensor:
    """Soft targets of SoftCLIP: y_ij = softmax_j(v_i.v_j / tau_s), no clusters, own pose included.

    The control for CASCLe's clusters, after Gao et al. 2024. Fact: it was run; ours: this form.
    poses: (B, D), unit length -> (B, B), rows sum to 1
    """
    return (poses @ poses.T / tau).softmax(dim=1)


@in_fp32
def off_prior(vectors: Tensor, expected: Tensor) -> Tensor:
    """Mean of 1 - cosine between the front part of EMG vectors and what the prior says (ours).

    vectors: (B, M, D), expected: (B, F) with F <= D: every one of the M is held to it
    """
    front = F.normalize(vectors[..., : expected.shape[1]], dim=-1)
    return 1 - torch.einsum("bmf,bf->bm", front, expected).mean()


def unsteadiness(embedding: Tensor, disturbed: Tensor) -> Tensor:
    """Mean of 1 - cosine between embeddings (B, D) of the same windows, clean and disturbed.

    Ours. An encoder that moves little under noise moves little under the rounding of int8 codes.
    """
    return 1 - F.cosine_similarity(embedding, disturbed).mean()


@in_fp32
def match_distillation(
    student_log_q: Tensor, teacher_scores: Tensor, tau: Tensor | float
) -> Tensor:
    """KL(teacher || student) over the poses of the batch (ours).

    teacher_scores: (B, B) cosine of each window's best query with each pose
    """
    teacher = F.log_softmax(teacher_scores / tau, dim=1)
    return F.kl_div(student_log_q, teacher, reduction="batchmean", log_target=True)


def _own(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=torch.bool, device=square.device)
