"""`embridge bench zero-shot`: the report, what is drawn, and calls that are refused."""

import json

import pytest

from embridge.training.synth_ninapro import Protocol, write_ninapro
from embridge.training.table import encoder_entries
from embridge.training.table.entries import Entry
from embridge.training.table.protocol import Tier
from embridge.training.table.ridge import RidgeToPose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three users of DB1."""
    path = tmp_path_factory.mktemp("data") / "db1"
    brief = Protocol(movements=12, repetitions=5, hold_s=0.7, rest_s=0.2)
    write_ninapro(path, "db1", (1, 2, 3), protocol=brief)
    return path


@pytest.fixture
def one_row(monkeypatch):
    row = Entry("ridge", lambda _: RidgeToPose(Tier.T1))
    monkeypatch.setitem(encoder_entries.ROWS, "baselines", lambda _seeds: [row])


def test_the_table_is_written_drawn_and_printed(cli, one_row, folder, tmp_path):
    out, plots = tmp_path / "table", tmp_path / "plots"
    code, printed, err = cli(
        "bench", "zero-shot", "--data", folder, "--out", out, "--plots", plots, "--json"
    )
    assert code == 0, err
    report = json.loads(printed)
    assert report == json.loads((out / "report.json").read_text())
    assert (report["data"], len(report["users"])) == ("db1", 3)
    [row] = report["rows"]
    assert row["tier"] == "T1"
    assert "| T1 | ridge |" in (out / "report.md").read_text()
    assert len(list((out / "cells").iterdir())) == 9
    assert {file.suffix for file in plots.iterdir()} == {".png"}
    assert cli("bench", "zero-shot", "--data", folder, "--out", out, "--json")[1] == printed


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--rows", "baseline,encoders"], "--rows baseline: expected some of baselines, encoders"),
        (["--data", "gone"], "does not exist"),
        (["--test-data", "gone"], "does not exist"),
    ],
)
def test_a_bad_call_is_refused_in_one_line(cli, one_row, folder, arguments, match):
    code, out, err = cli("bench", "zero-shot", "--data", folder, *arguments)
    assert (code, out) == (1, "")
    assert match in err.splitlines()[-1]
