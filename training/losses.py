"""The losses of EMBridge: L = InfoNCE + alpha CASCLe + lambda MPRL (MPRL lives in the Q-Former)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def best_query(queries: Tensor, poses: Tensor) -> Tensor:
    """u_i: the query of window i that is closest to its own pose (BLIP-2's rule).

    queries: (B, M, D), poses: (B, D), both unit length -> (B, D)
    """
    best = torch.einsum("bmd,bd->bm", queries, poses).argmax(dim=1)
    return queries[torch.arange(len(queries), device=queries.device), best]


def log_match(u: Tensor, v: Tensor, tau: Tensor | float) -> Tensor:
    """log q: (B, B), log-softmax over poses of cosine / tau. u, v: (B, D) unit length."""
    return F.log_softmax(u @ v.T / tau, dim=1)


def info_nce(log_q: Tensor) -> Tensor:
    """- mean_i log q_ii; one direction, since the pose side is frozen."""
    return -log_q.diagonal().mean()


def community_affinity(poses: Tensor, centroids: Tensor, top: int, tau: float) -> Tensor:
    """Soft targets of CASCLe: cosine to the k_c nearest centroids, then cosine between those rows.

    poses: (B, D), centroids: (N_c, D), unit length -> (B, B), rows sum to 1, zero diagonal
    """
    to_centroids = poses @ centroids.T  # B N_c
    nearest = to_centroids.topk(min(top, len(centroids)), dim=1)
    sparse = torch.zeros_like(to_centroids).scatter(1, nearest.indices, nearest.values)
    sparse = F.normalize(sparse, dim=1)
    affinity = sparse @ sparse.T  # B B
    own = torch.eye(len(poses), dtype=torch.bool, device=poses.device)
    return (affinity / tau).masked_fill(own, -torch.inf).softmax(dim=1)


def cascle(log_q: Tensor, affinity: Tensor) -> Tensor:
    """Community-aware soft contrastive loss: - mean_i sum_{j != i} y_ij log q_ij."""
    return -(affinity * log_q).sum(dim=1).mean()


def unsteadiness(embedding: Tensor, disturbed: Tensor) -> Tensor:
    """Mean of 1 - cosine between embeddings (B, D) of the same windows, clean and disturbed.

    An encoder that moves little under noise moves little under the rounding of int8 codes.
    """
    return 1 - F.cosine_similarity(embedding, disturbed).mean()


def match_distillation(
    student_log_q: Tensor, teacher_scores: Tensor, tau: Tensor | float
) -> Tensor:
    """KL(teacher || student) over the poses of the batch.

    teacher_scores: (B, B) cosine of each window's best query with each pose
    """
    teacher = F.log_softmax(teacher_scores / tau, dim=1)
    return F.kl_div(student_log_q, teacher, reduction="batchmean", log_target=True)
