"""Zero-shot figures of one encoder, per user and averaged.

Seen gestures compete among themselves, unseen ones among themselves (CPEP and EMBridge, sources N1
and C), and all together (generalised zero-shot, Xian et al. 2018, section 3.2), because a bias to
seen gestures hides in the first two. k nearest poses is the papers' rule; class means is ours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Gallery, Voter
from embridge.device.gallery_codes import prototypes
from embridge.training.evaluate import TestSet
from embridge.training.paper.confusion import (
    UNITS,
    Counts,
    Measured,
    Truth,
    accuracy,
    columns,
    confusion,
    over_users,
    recall_of,
)
from embridge.training.table.decide import Decided
from embridge.training.table.scores import balanced_accuracy, harmonic_mean

RULES = ("knn", "class_means")
TASKS = ("seen", "unseen", "generalised")
ROWS = ("seen", "unseen", "generalised seen", "generalised unseen", "harmonic mean")


@dataclass(frozen=True)
class ZeroShot:
    """Who decided what. counts: (rules, tasks, units, U, K, K) of RULES, TASKS and UNITS."""

    users: tuple[str, ...]
    labels: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    k: int
    counts: Counts

    def figures(self, rule: str = "knn", unit: str = "windows") -> dict[str, Measured]:
        """Balanced accuracy by row of ROWS; a row that nobody's windows belong to is left out.

        The harmonic mean is taken per user and then averaged.
        """
        counts = self.counts[RULES.index(rule), :, UNITS.index(unit)]  # tasks U K K
        everyone = counts[TASKS.index("generalised")]
        hidden = np.isin(self.labels, self.unseen)
        found = {
            "seen": accuracy(counts[0], self.users),
            "unseen": accuracy(counts[1], self.users),
            "generalised seen": accuracy(everyone, self.users, ~hidden),
            "generalised unseen": accuracy(everyone, self.users, hidden),
            "harmonic mean": over_users(
                harmonic_mean(
                    balanced_accuracy(everyone, ~hidden), balanced_accuracy(everyone, hidden)
                ),
                self.users,
            ),
        }
        return {row: figure for row, figure in found.items() if figure is not None}

    def chance(self, row: str) -> float | None:
        """What guessing gives; none for the harmonic mean."""
        if row == "harmonic mean":
            return None
        rivals = {"seen": len(self.seen), "unseen": len(self.unseen)}
        return 1 / rivals.get(row, len(self.seen) + len(self.unseen))

    def recalls(self, task: str, rule: str = "knn") -> dict[str, float]:
        """Recall of each gesture over all users' windows."""
        return recall_of(self.confusion(task, rule), self.labels)

    def confusion(self, task: str, rule: str = "knn") -> Counts:
        """Windows of each user, (U, K, K)."""
        return np.asarray(self.counts[RULES.index(rule), TASKS.index(task), 0])

    def json(self) -> dict[str, Any]:
        """Plain values: figures by rule and unit; recalls and confusion over windows by rule."""
        return {
            "users": list(self.users),
            "labels": list(self.labels),
            "seen": list(self.seen),
            "unseen": list(self.unseen),
            "k": self.k,
            "chance": {row: self.chance(row) for row in ROWS},
            **{rule: self._rule_json(rule) for rule in RULES},
        }

    def _rule_json(self, rule: str) -> dict[str, Any]:
        return {
            **{
                unit: {row: figure.json() for row, figure in self.figures(rule, unit).items()}
                for unit in UNITS
            },
            "per_class": {task: self.recalls(task, rule) for task in TASKS},
            "confusion": {task: self.confusion(task, rule).sum(axis=0).tolist() for task in TASKS},
        }

    def text(self) -> str:
        """Two tables in columns: figures, and the recall of each gesture."""
        named = {"knn": f"kNN, k = {self.k}", "class_means": "class means"}
        sides = [(rule, unit) for rule in RULES for unit in UNITS]
        found = {side: self.figures(*side) for side in sides}
        cells = [["zero-shot", "chance", *(f"{named[r]}, {u}" for r, u in sides)]]
        for row in found[sides[0]]:
            chance = self.chance(row)
            cells.append(
                [row, f"{chance:.3f}" if chance else "-", *(found[s][row].brief() for s in sides)]
            )
        own = self.recalls("seen") | self.recalls("unseen")
        every = self.recalls("generalised")
        recall = [["recall, kNN", "", "in its group", "all compete"]]
        recall += [
            [g, "unseen" if g in self.unseen else "seen", f"{own[g]:.3f}", f"{every[g]:.3f}"]
            for g in self.labels
            if g in own
        ]
        return f"{columns(cells)}\n\n{columns(recall)}"


def measure_zero_shot(
    test: TestSet, queries: NDArray[np.generic], gallery: Gallery, k: int
) -> ZeroShot:
    """Decide every window of the test set; queries (N, D) or (N, M, D) belong to test.inputs."""
    truth, labels = Truth.of(test.windows), test.labels
    seen, unseen = test.groups["seen"], test.groups["unseen"]
    counts = []
    for rule in RULES:
        for rivals in (seen, unseen, [*seen, *unseen]):
            mine = np.isin(truth.label, [labels.index(gesture) for gesture in rivals])
            decided = _decide(queries[mine], gallery.subset(rivals), rule, k)
            counts.append(confusion(truth.select(mine), decided, len(labels)))
    stacked = np.stack(counts)
    return ZeroShot(
        truth.users,
        labels,
        tuple(seen),
        tuple(unseen),
        k,
        stacked.reshape(len(RULES), len(TASKS), *stacked.shape[1:]),
    )


def _decide(queries: NDArray[np.generic], gallery: Gallery, rule: str, k: int) -> Decided:
    if not len(queries):
        return Decided(np.zeros(0, np.int64), np.zeros(0))
    voter = Voter(prototypes(gallery), 1) if rule == "class_means" else Voter(gallery, k)
    votes = [voter.vote(query) for query in queries]
    return Decided(
        np.array([vote.label for vote in votes], np.int64),
        np.array([vote.similarity for vote in votes]),
    )
