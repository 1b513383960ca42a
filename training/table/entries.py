"""Which rows the table has: the baselines; an encoder is one more entry."""

from collections.abc import Callable
from dataclasses import dataclass

from embridge.training.table.lda import HudginsLda
from embridge.training.table.protocol import Method, SeenClassifier, Tier
from embridge.training.table.ridge import RANDOM_FEATURES, GloveItself, RidgeToPose
from embridge.training.table.stacking import Stacked

Make = Callable[[int], Method | SeenClassifier]  # seed -> a fresh method, cheap to make


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be computed.

    make: from a seed; seeds: more than one where chance enters the method; reference: other rows of
    its tier are compared with it, user by user
    """

    name: str
    make: Make
    seeds: tuple[int, ...] = (0,)
    reference: bool = False


def baselines(seeds: tuple[int, ...] = (0, 1, 2)) -> list[Entry]:
    """The honest simple rows; `seeds` for those with random features."""
    t0, t1, t2, t3 = Tier.T0, Tier.T1, Tier.T2, Tier.T3
    width = RANDOM_FEATURES
    return [
        Entry("ridge", lambda _: RidgeToPose(t0), reference=True),
        Entry("ridge", lambda _: RidgeToPose(t1), reference=True),
        Entry("ridge, rotation", lambda _: RidgeToPose(t1, "rotation")),
        Entry("ridge, rotation/reflection", lambda _: RidgeToPose(t1, "reflection")),
        Entry(
            "ridge, rotation/reflection, random features",
            lambda seed: RidgeToPose(t1, "reflection", width, seed=seed),
            seeds,
        ),
        Entry(
            "ridge, rotation, seen gestures handicapped",
            lambda _: Stacked(lambda: RidgeToPose(t1, "rotation"), (0.0,)),
        ),
        Entry(
            "ridge, rotation, seen gestures handicapped by novelty",
            lambda _: Stacked(lambda: RidgeToPose(t1, "rotation")),
        ),
        Entry(
            "ridge, rotation/reflection, own labels + population",
            lambda _: RidgeToPose(t2, "reflection"),
            reference=True,
        ),
        Entry(
            "ridge, rotation/reflection, own glove + population",
            lambda _: RidgeToPose(t3, "reflection"),
            reference=True,
        ),
        Entry("ridge, own glove alone", lambda _: RidgeToPose(t3, population=False)),
        Entry("LDA on Hudgins features", lambda _: HudginsLda(t0)),
        Entry("LDA on Hudgins features", lambda _: HudginsLda(t1)),
        Entry("LDA on Hudgins features, own labels alone", lambda _: HudginsLda(t2)),
        Entry("glove itself (upper bound)", lambda _: GloveItself()),
    ]
