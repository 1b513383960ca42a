"""From cosines to a gesture: nearest class mean, k nearest poses, and the vote of a repetition."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.protocol import Floats
from embridge.training.table.splits import ALL

K = 10
RULES = ("class_means", "knn")
_CHUNK = 2048  # queries at once, which bounds the memory of (queries, gallery)


@dataclass(frozen=True, slots=True)
class Decided:
    """gesture: (N,) of 1..12; similarity: (N,) cosine (class means) or mean cosine (kNN) of it."""

    gesture: NDArray[np.int64]
    similarity: NDArray[np.float64]


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Vectors (..., D) at length 1."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def decide(
    queries: Floats,
    poses: Floats,
    label: NDArray[np.int64],
    *,
    by: str,
    centred: bool = False,
    penalty: NDArray[np.float64] | None = None,
    penalised: tuple[int, ...] = (),
) -> Decided:
    """Queries (N, D) or (N, M, D) against the candidates' pose embeddings (G, D) with labels (G,).

    by: one of RULES; penalty: (N,), subtracted from cosines to the gestures `penalised`
    """
    multiple = queries if queries.ndim == 3 else queries[:, None, :]  # N M D
    candidates = np.unique(label)
    centre = _class_means(poses, label).mean(axis=0) if centred else 0.0
    if by == "knn":
        reference, classes = unit(unit(poses) - centre), label
    else:
        reference, classes = unit(_class_means(poses, label) - centre), candidates
    less = np.zeros(len(queries)) if penalty is None else penalty
    hit = np.isin(classes, penalised).astype(np.float32)
    gestures, similarities = [], []
    for start in range(0, len(multiple), _CHUNK):
        part = multiple[start : start + _CHUNK]
        part = unit((unit(part) if centred else part) - centre)
        cosine = (part @ reference.T).max(axis=1)  # N G
        cosine -= less[start : start + _CHUNK, None].astype(np.float32) * hit
        gesture, similarity = _vote(cosine, classes) if by == "knn" else _nearest(cosine, classes)
        gestures.append(gesture)
        similarities.append(similarity)
    return Decided(np.concatenate(gestures), np.concatenate(similarities))


def class_scores(
    queries: Floats, poses: Floats, label: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cosines of queries (N, D) or (N, M, D) to the class means, (N, K), and the K gestures."""
    multiple = queries if queries.ndim == 3 else queries[:, None, :]
    cosine = (unit(multiple) @ unit(_class_means(poses, label)).T).max(axis=1)
    return cosine.astype(np.float64), np.unique(label)


def _class_means(poses: Floats, label: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean of unit-length pose embeddings of each gesture present, in order: (K, D)."""
    vectors = unit(poses)
    return np.stack([vectors[label == gesture].mean(axis=0) for gesture in np.unique(label)])


def _nearest(
    cosine: NDArray[np.float32], classes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    best = cosine.argmax(axis=1)
    return classes[best], cosine.max(axis=1).astype(np.float64)


def _vote(
    cosine: NDArray[np.float32], classes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Most of the k nearest, then the larger sum of cosines, as device.decision.Voter."""
    k = min(K, cosine.shape[1])
    nearest = np.argpartition(cosine, cosine.shape[1] - k, axis=1)[:, -k:]
    found = np.take_along_axis(cosine, nearest, axis=1).astype(np.float64)
    chosen = classes[nearest]
    votes = np.stack([(chosen == gesture).sum(axis=1) for gesture in ALL], axis=1)
    sums = np.stack([np.where(chosen == g, found, 0).sum(axis=1) for g in ALL], axis=1)
    winner = _most(votes, sums)
    row = np.arange(len(cosine))
    return np.asarray(ALL)[winner], sums[row, winner] / votes[row, winner]


def vote_of_runs(decided: Decided, run: NDArray[np.int64]) -> NDArray[np.int64]:
    """One gesture per run, in the order of np.unique(run): most windows, then larger similarity."""
    _, of_run = np.unique(run, return_inverse=True)
    gestures, column = np.unique(decided.gesture, return_inverse=True)
    if not len(run):
        return gestures
    votes = np.zeros((of_run.max(initial=-1) + 1, len(gestures)), np.int64)
    sums = np.zeros(votes.shape)
    np.add.at(votes, (of_run, column), 1)
    np.add.at(sums, (of_run, column), decided.similarity)
    return np.asarray(gestures[_most(votes, sums)])


def _most(votes: NDArray[np.int64], sums: NDArray[np.float64]) -> NDArray[np.int64]:
    tied = votes == votes.max(axis=1, keepdims=True)
    return np.asarray(np.where(tied, sums, -np.inf).argmax(axis=1))
