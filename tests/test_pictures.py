"""Plots: written where asked, from values alone, the same each time."""

from pathlib import Path

import numpy as np
import pytest

from embridge.benchmarks import pictures
from embridge.device.decision import Gallery
from embridge.training.paper.confusion import Measured

NAMES = ("rest", "fist", "point")
PNG = b"\x89PNG"


def is_png(file: Path) -> bool:
    data = file.read_bytes()
    return data.startswith(PNG) and len(data) > 3000


def test_a_confusion_matrix(tmp_path: Path) -> None:
    file = tmp_path / "new" / "c.png"
    pictures.draw_confusion(np.array([[0, 0, 0], [0, 8, 2], [0, 1, 0]]), NAMES, "t", file)
    assert is_png(file)


@pytest.mark.parametrize("count", [5, 40])
def test_a_map_of_few_points_and_of_many(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(count) % 2 + 1
    gallery = Gallery(rng.standard_normal((count, 4)), label, NAMES)
    queries = rng.standard_normal((count, 3, 4)).astype(np.float32)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        pictures.draw_map(queries, label, gallery, ["point"], "t", file)
    assert is_png(files[0])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_of_several_queries_the_map_shows_the_one_nearest_to_a_pose() -> None:
    queries = np.array([[[1, 0], [0, 2]], [[3, 0], [1, 1]]], np.float32)
    found = pictures._nearest_query(queries, np.array([[0.0, 1.0], [1.0, 0.0]]) @ np.eye(2))
    assert found[1].tolist() == [1, 0]
    found = pictures._nearest_query(queries, np.array([[0.0, 1.0]]))
    assert found[0].tolist() == [0, 1]


def test_users_and_shares(tmp_path: Path) -> None:
    measured = Measured(0.4, (0.3, 0.5), {"a": 0.3, "b": 0.5})
    pictures.draw_users([("x", measured, 0.25), ("y", measured, None)], "t", tmp_path / "u.png")
    curve = {"m": [(0.4, 0.3, (0.2, 0.4)), (1.0, 0.5, (0.4, 0.6))]}
    pictures.draw_shares(curve, "t", tmp_path / "s.png")
    assert is_png(tmp_path / "u.png")
    assert is_png(tmp_path / "s.png")


def point(threshold: float, accuracy: float | None) -> dict[str, object]:
    return {
        "min_similarity": threshold,
        "per_hour": 10 * (1 - threshold),
        "per_hour_ci95": (1.0, 20.0),
        "accepted": 1 - threshold,
        "accuracy": accuracy,
    }


@pytest.mark.parametrize("accuracy", [0.7, None])
def test_a_curve_of_false_activations(tmp_path: Path, accuracy: float | None) -> None:
    report = {
        "package": "x", "stage": "float", "tier": "T1", "rest_hours": 0.5,
        "data": {"name": "d", "synthetic": False},
        "own_threshold": point(0.5, accuracy),
        "sweep": [point(0.9, None), point(0.1, accuracy)],
    }  # fmt: skip
    pictures.draw_activations(report, tmp_path / "a.png")
    assert is_png(tmp_path / "a.png")


def test_the_table_gives_a_matrix_of_every_row_and_task(tmp_path: Path) -> None:
    """Three gestures, two folds; all competing, a row counts where its gesture was unseen."""
    confusion = {"confusion": {"1": [[4, 1, 0]] * 3, "2-3": [[0, 2, 2]] * 3}}
    report = {
        "data": "d", "users": ["a"], "protocol": {"gestures": list(NAMES)},
        "rows": [
            {"method": "ridge / x", "tier": "T1", "generalised": {"class_means": confusion}},
            {"method": "LDA", "tier": "T2", "seen": {"classifier": confusion}},
        ],
    }  # fmt: skip
    files = pictures.draw_table(report, tmp_path)
    assert [file.name for file in files] == ["T1-ridge---x-generalised.png", "T2-LDA-seen.png"]
    assert all(is_png(file) for file in files)
    first, second = pictures.table_matrices(report, "class_means")
    assert first[1] == "ridge / x, tier T1, d, 1 users: unseen gestures, all compete"
    assert first[2].tolist() == [[4, 1, 0], [0, 2, 2], [0, 2, 2]]
    assert second[2].tolist() == [[4, 3, 2]] * 3
