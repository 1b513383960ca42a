"""Which rows the table has without a network; those of encoders are in `encoder_entries`."""

from collections.abc import Callable
from dataclasses import dataclass

from embridge.training.table.forward import RidgeToEmg
from embridge.training.table.lda import HudginsLda
from embridge.training.table.protocol import Method, SeenClassifier, Tier
from embridge.training.table.ridge import RANDOM_FEATURES, GloveItself, RidgeToPose
from embridge.training.table.stacking import Stacked

Make = Callable[[int], Method | SeenClassifier]  # seed -> a fresh method, cheap to make


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be computed.

    make: from a seed; seeds: more than one where chance enters the method; reference: other rows of
    its tier are compared with it, user by user; facts: what makes it another method than the name
    and tier say
    """

    name: str
    make: Make
    seeds: tuple[int, ...] = (0,)
    reference: bool = False
    facts: str = ""


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
            "ridge, rotation, gate by a constant",
            lambda _: Stacked(lambda: RidgeToPose(t1, "rotation"), (0.0,)),
        ),
        Entry("ridge, rotation, gate", lambda _: Stacked(lambda: RidgeToPose(t1, "rotation"))),
        Entry("pose to EMG", lambda _: RidgeToEmg(t0)),
        Entry("pose to EMG, electrodes in place", lambda _: RidgeToEmg(t1, align=False)),
        Entry("pose to EMG", lambda _: RidgeToEmg(t1)),
        Entry("pose to EMG, self-trained", lambda _: RidgeToEmg(t1, guess=True)),
        Entry(
            "pose to EMG, self-trained, gate",
            lambda _: Stacked(lambda: RidgeToEmg(t1, guess=True)),
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
        Entry("pose to EMG, own labels + population", lambda _: RidgeToEmg(t2)),
        Entry("pose to EMG, own glove + population", lambda _: RidgeToEmg(t3)),
        Entry("ridge, own glove alone", lambda _: RidgeToPose(t3, population=False)),
        Entry("LDA on Hudgins features", lambda _: HudginsLda(t0)),
        Entry("LDA on Hudgins features", lambda _: HudginsLda(t1)),
        Entry("LDA on Hudgins features, own labels alone", lambda _: HudginsLda(t2)),
        Entry("glove itself (upper bound)", lambda _: GloveItself()),
    ]
