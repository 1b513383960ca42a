"""The paper's table: published figures are never mistaken for ours, ours say what they are."""

import json

import pytest

from embridge.training.method import METHODS
from embridge.training.paper.confusion import Measured
from embridge.training.paper.published import COLUMNS, OwnRow, paper_table


def own(method: str, synthetic: bool = True, **figures: float) -> OwnRow:
    measured = {
        name: Measured(figures[name], (0.1, 0.9), {"u0": 0.1, "u1": 0.9})
        if name in figures
        else None
        for name in COLUMNS
    }
    return OwnRow("run7", method, "base", "some_set", synthetic, "T1", 2, measured)


def test_published_figures_are_those_of_the_notes() -> None:
    rows = {row.method: row for row in paper_table([], "").published}
    assert rows["EMBridge"].figures == dict(zip(COLUMNS, (0.785, 0.777, 0.505, 0.528), strict=True))
    assert rows["CPEP"].figures["zs_unseen"] == 0.481
    assert rows["EMG-MAE"].figures == {"lp_seen": 0.347, "lp_unseen": 0.334}
    assert rows["Pose encoder (upper bound)"].figures == {"lp_seen": 0.851, "lp_unseen": 0.649}
    assert all(row.source for row in rows.values())


def test_every_method_named_beside_a_published_row_can_be_trained() -> None:
    known = {file.stem for file in METHODS.glob("*.toml")}
    assert {row.config for row in paper_table([], "").published if row.config} <= known


def test_every_row_says_what_was_run_on_what() -> None:
    table = paper_table([own("cpep", lp_seen=0.5, zs_unseen=0.25)], "PROTOCOL.")
    lines = table.text().splitlines()
    published = [line for line in lines if "published, emg2pose" in line]
    here = [line for line in lines if "HERE" in line and line.startswith("cpep")]
    assert len(published) == len(table.published)
    assert len(here) == 1
    for word in ("some_set (synthetic)", "T1", " 2 ", "0.500 [0.100, 0.900]", "run run7"):
        assert word in here[0]
    assert lines.index(here[0]) == lines.index(published[2]) + 1  # below CPEP's
    assert "they were not run here" in lines[0]
    assert "Synthetic data says nothing of real accuracy." in lines
    assert "Other data than emg2pose: the columns cannot be compared." in lines


def test_real_emg2pose_needs_no_excuse() -> None:
    row = own("cpep", synthetic=False, zs_seen=0.7)
    text = paper_table([row], "").text()
    assert "some_set (real)" in text
    assert "Synthetic" not in text


def test_a_method_that_nobody_published_comes_last() -> None:
    table = paper_table([own("mine", lp_seen=0.3)], "")
    assert table.text().splitlines()[-1].startswith("mine, base")
    assert table.markdown().splitlines()[-1].startswith("| mine, base")


def test_the_json_keeps_published_and_own_apart() -> None:
    found = json.loads(json.dumps(paper_table([own("cpep", zs_seen=0.5)], "P").json()))
    assert found["published"]["data"] == "emg2pose"
    assert found["published"]["read_in"] == "secondary sources, not in the paper"
    assert found["run_here"][0]["data"] == "some_set"
    assert found["run_here"][0]["synthetic"] is True
    assert found["run_here"][0]["zs_seen"]["users"] == 2
    assert found["run_here"][0]["lp_seen"] is None
    assert not {"lp_seen", "zs_seen"} - {*found["published"]["rows"][2]}


@pytest.mark.parametrize("column", COLUMNS)
def test_published_figures_are_shares(column: str) -> None:
    for row in paper_table([], "").published:
        assert 0 < row.figures.get(column, 0.5) < 1
