"""The pose gallery: embeddings of training users' poses, of all gestures, unseen ones included.

No EMG goes in. A gesture is taught by adding rows to it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Gallery
from embridge.device.errors import ConfigError
from embridge.training.encoders import PoseEmbedder
from embridge.training.models import batched
from embridge.training.study import Study


@dataclass(frozen=True)
class PoseGallery:
    """Sampled pose windows of the training users.

    embeddings: (G, D) unit length; mean_pose: (G, J) scaled angles; labels: (G,) into plan.labels
    """

    embeddings: NDArray[np.float32]
    mean_pose: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def embedded(self) -> Gallery:
        """For queries in the embedding space."""
        return Gallery(self.embeddings.astype(np.float64), self.labels, self.names)

    def posed(self) -> Gallery:
        """For queries that are joint angles."""
        return Gallery(self.mean_pose.astype(np.float64), self.labels, self.names)


def build_gallery(study: Study, embedder: PoseEmbedder, per_gesture: int, seed: int) -> PoseGallery:
    """Sample up to `per_gesture` pose windows of each gesture, spread over the training users.

    ConfigError when a gesture has none: it could never be recognised.
    """
    plan = study.plan
    windows = study.windows(plan.train_users, plan.labels, plan.train_hop, need_pose=True)
    if missing := sorted({*range(len(plan.labels))} - {*windows.label.tolist()}):
        raise ConfigError(
            f"no window with valid pose of {', '.join(plan.labels[i] for i in missing)} among the "
            "training users: make data.window_ms shorter, or leave these recordings out"
        )
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(windows.label):
        order = rng.permutation(np.flatnonzero(windows.label == label))
        rank = np.zeros(len(order), np.int64)  # n-th window of its user
        for user in np.unique(windows.user):
            of_user = windows.user[order] == user
            rank[of_user] = np.arange(of_user.sum())
        chosen.append(order[np.argsort(rank, kind="stable")[:per_gesture]])
    index = np.concatenate(chosen)
    poses = windows.pose(index)  # G J T
    return PoseGallery(
        batched(embedder, poses), poses.mean(axis=2), windows.label[index], plan.labels
    )
