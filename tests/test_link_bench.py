"""The figures of a link, on a wrist in this process whose behaviour is known."""

import json

import pytest

from embridge.benchmarks.link_bench import bench_link, largest_rate, search_text, text
from embridge.device.errors import ConfigError
from embridge.firmware_bridge.scan import as_json, as_text, ask_port, scan


def test_every_frame_is_accounted_for_and_the_figures_are_plain_values():
    result = bench_link("virtual://?seed=1&speed=1.0", seconds=4.0)
    assert result["frames_sent"] > 0
    assert (result["frames_lost"], result["frames_corrupt"], result["gaps"]) == (0, 0, 0)
    assert result["rate_hz"] == pytest.approx(2000, rel=0.05)
    assert result["frame_ms"] == 10.0
    assert result["latency_is"] == "absolute"
    assert result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert 0 < result["cpu_share"] < 1
    assert result["cpu_includes_wrist"]
    assert json.loads(json.dumps(result)) == result
    assert "0 lost" in text(result)


def test_a_rate_that_no_host_reads_does_not_hold():
    result = bench_link("virtual://?speed=100000", seconds=0.5)
    assert not result["holds"]
    assert "DOES NOT HOLD" in text(result)


@pytest.mark.slow
def test_the_largest_rate_lies_between_one_that_holds_and_one_that_does_not():
    result = largest_rate("virtual://?seed=1")
    held = [tried["speed"] for tried in result["tried"] if tried["holds"]]
    assert result["largest"]["speed"] == max(held)
    assert any(not tried["holds"] for tried in result["tried"])
    assert "largest that holds" in search_text(result)


def test_the_rate_of_a_real_wrist_cannot_be_searched():
    with pytest.raises(ConfigError, match="its own"):
        largest_rate("serial:///dev/ttyACM0")


def test_a_scan_names_wrists_and_says_why_others_are_none(tmp_path):
    found = scan([f"serial://{tmp_path}/none"], seconds=0.0)
    mine = next(one for one in found if one.url == f"serial://{tmp_path}/none")
    assert not mine.is_wrist
    assert "no port" in mine.text
    assert as_json(found)["wrists"] == []
    assert str(tmp_path) in as_text(found)


def test_a_url_that_is_none_is_part_of_the_answer():
    assert "expected serial" in ask_port("usb://1").text
