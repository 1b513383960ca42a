"""The `watch` encoder learns the pose space, and how `base` sees every pose of the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from embridge.training import losses as L
from embridge.training.align import Alignment, contrastive_terms, weighted
from embridge.training.distributed import everyone
from embridge.training.disturb import disturbed_embedding
from embridge.training.encoders import PoseEmbedder
from embridge.training.method import LossConfig
from embridge.training.watch import WatchEncoder


def watch_losses(
    watch: WatchEncoder,
    teacher: Alignment,
    pose_side: PoseEmbedder,
    config: LossConfig,
    emg: Tensor,
    pose: Tensor,
    mixed: Tensor | None = None,
) -> dict[str, Tensor]:
    """The method's own contrast, and what the teacher has to say (ours): the mean of its vectors
    of each window, and its match of each window with each pose.

    emg, mixed: (B, C, T), pose: (B, J, T); of `mixed`, which has no pose, the teacher's
    mean vector is asked too. Cosine does not see the length of an embedding, but its int8 codes do:
    one scale serves all windows, so a short embedding would have few levels. `length` keeps them
    near 1, and `unsteady` keeps them where they are when codes are rounded.
    """
    with torch.no_grad():
        v = everyone(pose_side.eval()(pose))  # B D
        queries = everyone(teacher.base.eval()(emg))  # B M D
        scores = L.closest_query(queries, v)
    embedding = watch.embed(emg).float()
    u = everyone(F.normalize(embedding, dim=1))
    cosine = L.cosines(u, v)
    terms = contrastive_terms(cosine, v, config.tau_watch, pose_side.centroids, config)
    log_q = L.log_match(cosine, config.tau_watch)
    teaching = F.normalize(queries.mean(dim=1), dim=1)
    terms["direct"] = (config.direct, 1 - (u * teaching).sum(dim=1).mean())
    terms["distil"] = (1.0, L.match_distillation(log_q, scores, teacher.tau().detach()))
    terms["length"] = (config.length, (embedding.norm(dim=1) - 1).square().mean())
    moved = disturbed_embedding(watch, emg, config.input_noise, config.act_noise)
    terms["unsteady"] = (config.steady, L.unsteadiness(embedding, moved))
    if mixed is not None:
        with torch.no_grad():
            there = F.normalize(teacher.base(mixed).mean(dim=1), dim=1)
        strange = F.normalize(watch.embed(mixed).float(), dim=1)
        terms["mixed"] = (config.mixed, 1 - (strange * there).sum(dim=1).mean())
    return weighted(terms)
