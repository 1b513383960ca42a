"""Stage 2: the EMG side is aligned to the pose encoder, which stays as it is."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn

from embridge.training import losses as L
from embridge.training.base import BaseEncoder, QFormerBase
from embridge.training.distributed import everyone
from embridge.training.draws import hidden_patches
from embridge.training.encoders import PatchEncoder, PoseEmbedder
from embridge.training.method import LossConfig
from embridge.training.models import batched
from embridge.training.mprl import MaskedPoseReconstruction

Terms = dict[str, tuple[float, Tensor]]  # weight and value of each part of a loss


class Alignment(nn.Module):
    """L = InfoNCE + alpha CASCLe + lambda MPRL, and what it trains: `base`, tau and MPRL's parts.

    Fact: the pose encoder is frozen; it is handed in, so it is no part of what is trained. CPEP's
    tau is learned from 0.02 on. Ours: EMBridge's is learned too; alpha and lambda are not stated.
    """

    def __init__(
        self, base: BaseEncoder, config: LossConfig, mask_ratio: float, prior: float = 0.0
    ) -> None:
        """prior: weight of what holds the EMG side to the pose side's prior, where it has one."""
        super().__init__()
        self.base = base
        self.log_tau = nn.Parameter(torch.tensor(config.tau).log())
        self.mprl = MaskedPoseReconstruction(base.encoder.dim) if config.lambda_ else None
        self._config, self._mask_ratio, self._prior = config, mask_ratio, prior

    def tau(self) -> Tensor:
        """Temperature of the contrastive softmax, learned."""
        return self.log_tau.exp()

    def losses(self, pose_side: PoseEmbedder, emg: Tensor, pose: Tensor) -> dict[str, Tensor]:
        """emg: (B, C, T), pose: (B, J, T) -> "loss" and its terms."""
        with torch.no_grad():
            own = pose_side.eval()(pose)  # B D
        hidden, queries = self.base.queries(emg)
        v = everyone(own)
        if self._config.query == "own":
            cosine = L.cosines(everyone(L.best_query(queries, own)), v)
        else:
            cosine = L.closest_query(everyone(queries), v)
        terms = contrastive_terms(cosine, v, self.tau(), pose_side.centroids, self._config)
        if self.mprl and isinstance(self.base, QFormerBase):
            masked = self._masked_poses(pose_side.encoder, pose)
            terms["mprl"] = (self._config.lambda_, self.mprl(self.base.qformer, hidden, *masked))
        if pose_side.prior:
            expected = pose_side.prior.of_windows(emg)
            terms["prior"] = (self._prior, L.off_prior(queries, expected))
        return weighted(terms)

    def _masked_poses(self, encoder: PatchEncoder, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """P (B, P, D), its position (1, P, D), and which are masked (B, P)."""
        with torch.no_grad():
            patches = encoder.embed_patch(encoder.tokens(pose))
        masked = hidden_patches(len(patches), encoder.patches, self._mask_ratio, like=patches)
        return patches, encoder.position[:, 1:].detach(), masked


def contrastive_terms(
    cosine: Tensor, v: Tensor, tau: Tensor | float, centroids: Tensor, config: LossConfig
) -> Terms:
    """InfoNCE in one direction or both, and the soft targets of the method.

    cosine: (B, B) of window i with pose j; v: (B, D) the poses, unit length
    """
    log_q = L.log_match(cosine, tau)
    ways = [log_q, L.log_match(cosine.T, tau)] if config.symmetric else [log_q]
    if config.targets == "label-smoothing":
        smooth = [L.cross_entropy(way, L.smoothed_labels(way, config.smoothing)) for way in ways]
        return {"info_nce": (1.0, torch.stack(smooth).mean())}
    terms = {"info_nce": (1.0, torch.stack([L.info_nce(way) for way in ways]).mean())}
    if config.targets == "cascle":
        affinity = L.community_affinity(v, centroids, config.top_clusters, config.tau_soft)
        others = L.log_match_others(log_q) if config.renormalise else log_q
        terms["cascle"] = (config.alpha, L.cascle(others, affinity))
    if config.targets == "softclip":
        soft = L.cross_entropy(log_q, L.instance_affinity(v, config.tau_soft))
        terms["softclip"] = (config.alpha, soft)
    return terms


def weighted(terms: Terms) -> dict[str, Tensor]:
    """The weighted sum as "loss", beside the terms without their weights."""
    total = torch.stack([weight * value for weight, value in terms.values()]).sum()
    return {"loss": total} | {name: value for name, (_, value) in terms.items()}


def fix_pose_space(
    pose_side: PoseEmbedder, poses: NDArray[np.float32], config: LossConfig, seed: int
) -> None:
    """Measure the mean of [CLS] and, for CASCLe, find N_c centroids by k-means.

    poses: (N, J, T), a sample of the training poses (fact: k-means is offline, on Pose-MAE
    embeddings; ours: on a sample of them)
    """
    device = pose_side.mean.device
    pose_side.eval()
    cls = batched(lambda pose: pose_side.features(pose.to(device)).cpu(), poses)  # N D
    pose_side.mean.copy_(torch.from_numpy(cls.mean(axis=0)))
    if config.targets != "cascle":
        return
    vectors = batched(lambda pose: pose_side(pose.to(device)).cpu(), poses)  # N D
    clusters = min(len(pose_side.centroids), len(vectors))
    found = KMeans(clusters, n_init=1, random_state=seed).fit(vectors).cluster_centers_
    pose_side.centroids[:clusters] = F.normalize(torch.from_numpy(found).float(), dim=1)
