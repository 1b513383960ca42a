"""Votes, rejection and debouncing."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.decision import (
    Debouncer,
    Decision,
    DecisionRule,
    Event,
    Gallery,
    Vote,
    Voter,
    decide,
)
from embridge.device.errors import ConfigError

NAMES = ("rest", "fist", "pinch", "point")
RULE = DecisionRule(k=3, min_similarity=0.5, min_vote=0.6, debounce_ms=300, null_gesture="rest")
seeds = st.integers(0, 2**32 - 1)


def gallery_of(vectors: object, labels: object, names: tuple[str, ...] = NAMES) -> Gallery:
    return Gallery(np.asarray(vectors, np.float64), np.asarray(labels, np.int64), names)


def random_gallery(rng: np.random.Generator, rows: int, dim: int) -> Gallery:
    return gallery_of(rng.normal(size=(rows, dim)), rng.integers(len(NAMES), size=rows))


def brute_force(gallery: Gallery, query: NDArray[np.float64], k: int) -> Vote:
    """Cosine k nearest neighbours written out, one pair at a time."""
    scored = []
    for vector, label in zip(gallery.vectors, gallery.labels, strict=True):
        length = float(np.sqrt(vector @ vector))
        scored.append(
            (max(float(q @ vector) / length / float(np.sqrt(q @ q)) for q in query), int(label))
        )
    nearest = sorted(scored, key=lambda pair: -pair[0])[:k]
    ranked = []
    for label in {label for _, label in nearest}:
        own = [similarity for similarity, other in nearest if other == label]
        ranked.append((-len(own), -sum(own), label))
    votes, total, label = min(ranked)
    return Vote(label, -votes / len(nearest), total / votes)


@given(seed=seeds, rows=st.integers(1, 30), dim=st.integers(2, 8), k=st.integers(1, 40))
def test_a_vote_is_a_brute_force_cosine_knn(seed: int, rows: int, dim: int, k: int) -> None:
    """k may exceed the gallery: then every row votes."""
    rng = np.random.default_rng(seed)
    gallery = random_gallery(rng, rows, dim)
    query = rng.normal(size=dim)
    found, expected = Voter(gallery, k).vote(query), brute_force(gallery, query[None], k)
    assert (found.label, found.share) == (expected.label, expected.share)
    assert found.similarity == pytest.approx(expected.similarity, abs=1e-12)


@given(seed=seeds, queries=st.integers(1, 6))
def test_of_several_queries_the_best_counts_for_each_pose(seed: int, queries: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = random_gallery(rng, 20, 5)
    many = rng.normal(size=(queries, 5))
    found, expected = Voter(gallery, 7).vote(many), brute_force(gallery, many, 7)
    assert (found.label, found.share) == (expected.label, expected.share)
    assert found.similarity == pytest.approx(expected.similarity, abs=1e-12)


@given(seed=seeds)
def test_integer_codes_give_what_integer_arithmetic_gives(seed: int) -> None:
    """So a vote cannot depend on the order of summation: not on the machine, nor on a batch."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-128, 128, (40, 64))
    codes[rng.integers(40, size=10)] = codes[0]  # ties
    query = rng.integers(-128, 128, 64).astype(np.int8)
    labels = rng.integers(len(NAMES), size=40)
    gallery = gallery_of(codes, labels)
    dots = codes @ query.astype(np.int64)
    inverse = 1.0 / np.sqrt((codes**2).sum(axis=1).astype(np.float64))
    cosine = dots * inverse / np.sqrt(float((query.astype(np.int64) ** 2).sum()))
    nearest = np.argsort(-cosine, kind="stable")[:10]
    votes = np.bincount(labels[nearest], minlength=4)
    vote = Voter(gallery, 10).vote(query)
    assert votes[vote.label] == votes.max()
    assert vote.share == votes.max() / 10
    own = np.bincount(labels[nearest], cosine[nearest], minlength=4)[vote.label]
    assert vote.similarity == own / votes.max()
    reversed_memory = gallery_of(np.asfortranarray(codes.astype(np.float64)), labels)
    assert Voter(reversed_memory, 10).vote(query[::1]) == vote
    assert Voter(gallery, 10).vote(np.stack([query] * 16)) == vote


@given(seed=seeds, powers=st.lists(st.integers(-4, 4), min_size=25, max_size=25))
def test_only_the_directions_of_the_gallery_matter(seed: int, powers: list[int]) -> None:
    rng = np.random.default_rng(seed)
    gallery = gallery_of(rng.integers(-127, 128, (25, 16)), rng.integers(4, size=25))
    scale = np.exp2(powers)[:, None]  # powers of two keep every bit
    scaled = dataclasses.replace(gallery, vectors=gallery.vectors * scale)
    query = rng.integers(-127, 128, 16)
    assert Voter(gallery, 10).vote(query) == Voter(scaled, 10).vote(query)
    stretched = dataclasses.replace(gallery, vectors=gallery.vectors * rng.uniform(0.1, 9, (25, 1)))
    again = Voter(stretched, 25).vote(query * 3)
    whole = Voter(gallery, 25).vote(query)
    assert (again.label, again.share) == (whole.label, whole.share)
    assert again.similarity == pytest.approx(whole.similarity, abs=1e-12)


def test_equal_votes_go_to_the_larger_sum_of_cosines_then_to_the_lower_label() -> None:
    query = np.array([1.0, 0.0])
    near, far = [1.0, 0.1], [1.0, 0.3]
    assert Voter(gallery_of([far, near], [1, 2]), 2).vote(query).label == 2
    assert Voter(gallery_of([near, near], [3, 1]), 2).vote(query).label == 1


def test_equally_near_poses_are_taken_in_the_order_of_the_gallery() -> None:
    gallery = gallery_of([[2.0, 0.0], [1.0, 0.0], [4.0, 0.0]], [2, 1, 1])
    assert Voter(gallery, 1).vote(np.array([1.0, 0.0])).label == 2


def test_zero_vectors_are_similar_to_nothing() -> None:
    gallery = gallery_of([[0.0, 0.0], [1.0, 0.0]], [1, 2])
    assert Voter(gallery, 1).vote(np.array([1.0, 0.0])) == Vote(2, 1.0, 1.0)
    assert Voter(gallery, 2).vote(np.zeros(2)).similarity == 0


def test_an_empty_gallery_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="at least one pose") as error:
        Voter(gallery_of(np.zeros((0, 3)), []), 5)
    assert "\n" not in str(error.value)


def test_a_rule_without_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="k"):
        DecisionRule.model_validate(RULE.model_dump() | {"k": 0})


def test_a_subset_keeps_label_numbers_and_drops_the_rest() -> None:
    gallery = gallery_of(np.eye(4), [0, 1, 2, 1])
    part = gallery.subset(["fist", "unknown"])
    assert part.labels.tolist() == [1, 1]
    assert part.names == NAMES
    assert np.array_equal(part.vectors, np.eye(4)[[1, 3]])


@pytest.mark.parametrize(
    ("labels", "query", "gesture"),
    [
        ([1, 1, 1], [1.0, 0.0], "fist"),
        ([1, 1, 2], [1.0, 0.0], "fist"),  # two of three votes: enough
        ([1, 2, 3], [1.0, 0.0], None),  # disputed
        ([1, 1, 1], [0.4, 0.9], None),  # agreed, but far from every pose
        ([0, 0, 0], [1.0, 0.0], "rest"),
    ],
)
def test_a_window_is_rejected_when_far_from_every_pose_or_disputed(
    labels: list[int], query: list[float], gesture: str | None
) -> None:
    voter = Voter(gallery_of([[1.0, 0.0]] * 3, labels), RULE.k)
    decision = decide(voter, NAMES, RULE, 40, np.array(query))
    assert (decision.start, decision.gesture) == (40, gesture)


def test_thresholds_are_included() -> None:
    voter = Voter(gallery_of([[1.0, 0.0]] * 2, [1, 2]), 2)
    rule = RULE.model_copy(update={"min_vote": 0.5, "min_similarity": 1.0})
    assert decide(voter, NAMES, rule, 0, np.array([3.0, 0.0])).gesture == "fist"


def decisions(gestures: list[str | None]) -> list[Decision]:
    return [Decision(100 * i, gesture, 1.0, 1.0) for i, gesture in enumerate(gestures)]


def events(debouncer: Debouncer, gestures: list[str | None]) -> list[tuple[int, str, str]]:
    """(decision number, gesture, state) of every event."""
    return [
        (event.decision.start // 100, event.gesture, event.state)
        for decision in decisions(gestures)
        for event in debouncer.push(decision)
    ]


@given(
    gestures=st.lists(st.sampled_from([None, "rest", "fist", "pinch"]), max_size=40),
    debounce_ms=st.sampled_from([0.0, 90.0, 100.0, 140.0, 250.0, 300.0]),
)
def test_an_event_comes_only_after_the_gesture_has_held_for_the_debounce_time(
    gestures: list[str | None], debounce_ms: float
) -> None:
    hop_ms = 100.0
    rule = RULE.model_copy(update={"debounce_ms": debounce_ms})
    needed = next(n for n in range(1, 10) if n * hop_ms >= debounce_ms)
    expected, active = [], None
    plain = [None if gesture == "rest" else gesture for gesture in gestures]
    for i, gesture in enumerate(plain):
        held = i + 1 >= needed and set(plain[i + 1 - needed : i + 1]) == {gesture}
        if held and gesture != active:
            expected += [(i, active, "off")] if active else []
            expected += [(i, gesture, "on")] if gesture else []
            active = gesture
    assert events(Debouncer(rule, hop_ms), gestures) == expected


def test_a_change_ends_one_gesture_and_begins_the_other_at_once() -> None:
    debouncer = Debouncer(RULE, 100)
    made = decisions(["fist"] * 3 + ["pinch"] * 3)
    found = [debouncer.push(decision) for decision in made]
    assert found[2] == [Event("fist", "on", made[2])]
    assert found[5] == [Event("fist", "off", made[5]), Event("pinch", "on", made[5])]
    assert not any(found[i] for i in (0, 1, 3, 4))


def test_the_null_gesture_ends_a_gesture_and_is_never_an_event() -> None:
    assert events(Debouncer(RULE, 100), ["rest"] * 5 + ["fist"] * 3 + ["rest", None, "rest"]) == [
        (7, "fist", "on"),
        (10, "fist", "off"),
    ]


def test_flicker_causes_nothing() -> None:
    assert events(Debouncer(RULE, 100), ["fist", "pinch", None] * 10) == []


def test_reset_forgets_the_running_gesture_and_what_was_held() -> None:
    debouncer = Debouncer(RULE, 100)
    assert events(debouncer, ["fist"] * 3 + ["pinch"] * 2) == [(2, "fist", "on")]
    (ended,) = debouncer.reset()
    assert (ended.gesture, ended.state) == ("fist", "off")
    assert debouncer.reset() == []
    assert events(debouncer, ["pinch"] * 2) == []
    assert events(debouncer, ["pinch"]) == [(0, "pinch", "on")]


@pytest.mark.parametrize("rate_hz", [100.0, 128.0, 200.0, 250.0, 1000.0, 1926.0, 2000.0])
def test_a_whole_number_of_hops_needs_exactly_as_many_decisions(rate_hz: float) -> None:
    """Rounding of the hop in milliseconds must not cost one decision more."""
    for hop in (7, 10, 25):
        hop_ms = 1000 * hop / rate_hz
        for needed in range(1, 12):
            rule = RULE.model_copy(update={"debounce_ms": hop_ms * needed})
            assert events(Debouncer(rule, hop_ms), ["fist"] * needed) == [
                (needed - 1, "fist", "on")
            ]
