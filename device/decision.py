"""From an embedding to a gesture: nearest pose embeddings, rejection, debouncing.

EMBridge retrieves by cosine among pose embeddings and takes a majority vote of the k nearest
(k = 10). Rejection and debouncing are what a live stream needs on top and never enter the
zero-shot figures.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from embridge.device.errors import ConfigError


class DecisionRule(BaseModel):
    """How a live decision is made; part of the model package.

    min_similarity: mean cosine of the winning neighbours below which a window is rejected
    min_vote: share of the k neighbours the winner needs
    null_gesture: the gesture that means "no gesture"; it never becomes an event
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: PositiveInt
    min_similarity: float
    min_vote: float
    debounce_ms: float
    null_gesture: str

    def accepts(self, similarity: float, share: float) -> bool:
        """Whether a vote is near enough to the poses and agreed on enough."""
        return similarity >= self.min_similarity and share >= self.min_vote

    def hops_held(self, hop_ms: float) -> int:
        """How many decisions in a row a change takes."""
        # The small part is for hops that are no whole number of milliseconds.
        return max(1, math.ceil(self.debounce_ms / hop_ms - 1e-6))


@dataclass(frozen=True, slots=True)
class Gallery:
    """Labelled pose embeddings, the only thing a query is compared with.

    vectors: (G, D) float64: int8 codes as they are, or float embeddings; only directions matter
    labels: (G,) index into `names`
    """

    vectors: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def subset(self, names: list[str]) -> "Gallery":
        """The part of the gallery with these gestures; label numbers stay the same."""
        wanted = [self.names.index(name) for name in names if name in self.names]
        keep = np.isin(self.labels, wanted)
        return Gallery(self.vectors[keep], self.labels[keep], self.names)


@dataclass(frozen=True, slots=True)
class Vote:
    """Outcome of one retrieval: winner's label, its share of the k votes, its mean cosine."""

    label: int
    share: float
    similarity: float


class Voter:
    """k-nearest-neighbour vote over a gallery.

    Queries that are int8 codes give exact integer dot products in float64, so the result does not
    depend on how many windows are computed at once, nor on the machine.
    """

    def __init__(self, gallery: Gallery, k: int) -> None:
        if not len(gallery.vectors):
            raise ConfigError("expected a gallery with at least one pose embedding, got none")
        self._vectors = gallery.vectors
        self._inverse_norm = 1.0 / np.maximum(np.linalg.norm(gallery.vectors, axis=1), 1e-12)
        self._labels = gallery.labels
        self._classes = len(gallery.names)
        self._k = min(k, len(gallery.vectors))

    def vote(self, query: NDArray[np.generic]) -> Vote:
        """query: (D,) embedding, or (M, D) several queries of one window (the best one counts)."""
        queries = np.atleast_2d(np.asarray(query, np.float64))  # M D
        norms = np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
        cosine = (queries @ self._vectors.T * self._inverse_norm / norms).max(axis=0)  # G
        nearest = np.argsort(-cosine, kind="stable")[: self._k]
        votes = np.bincount(self._labels[nearest], minlength=self._classes)
        sums = np.bincount(self._labels[nearest], cosine[nearest], minlength=self._classes)
        label = int(np.lexsort((-sums, -votes))[0])  # most votes, then the larger sum of cosines
        return Vote(label, float(votes[label] / self._k), float(sums[label] / votes[label]))


@dataclass(frozen=True, slots=True)
class Decision:
    """One window's outcome; `gesture` is None when rejected. `start` is its first sample."""

    start: int
    gesture: str | None
    share: float
    similarity: float


def decide(
    voter: Voter, names: tuple[str, ...], rule: DecisionRule, start: int, query: NDArray[np.generic]
) -> Decision:
    """Vote, then reject what is too far from every pose or too disputed."""
    vote = voter.vote(query)
    accepted = rule.accepts(vote.similarity, vote.share)
    return Decision(start, names[vote.label] if accepted else None, vote.share, vote.similarity)


@dataclass(frozen=True, slots=True)
class Event:
    """A gesture begins ("on") or ends ("off") at the decision given."""

    gesture: str
    state: str
    decision: Decision


class Debouncer:
    """Turns decisions into events: a change counts once it has held for `debounce_ms`."""

    def __init__(self, rule: DecisionRule, hop_ms: float) -> None:
        self._null = rule.null_gesture
        self._needed = rule.hops_held(hop_ms)
        self._active: str | None = None
        self._candidate: str | None = None
        self._held = 0
        self._last: Decision | None = None

    def reset(self) -> list[Event]:
        """End the running gesture at the last decision, as at a gap: nobody knows it still runs."""
        ended = []
        if self._active is not None and self._last is not None:
            ended.append(Event(self._active, "off", self._last))
        self._active, self._candidate, self._held = None, None, 0
        return ended

    def push(self, decision: Decision) -> list[Event]:
        """Return the events this decision causes: none, one, or an off and an on."""
        gesture = None if decision.gesture == self._null else decision.gesture
        self._held = self._held + 1 if gesture == self._candidate else 1
        self._candidate, self._last = gesture, decision
        if gesture == self._active or self._held < self._needed:
            return []
        events = []
        if self._active is not None:
            events.append(Event(self._active, "off", decision))
        if gesture is not None:
            events.append(Event(gesture, "on", decision))
        self._active = gesture
        return events
