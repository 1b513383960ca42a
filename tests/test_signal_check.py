"""Whether a signal is fit to be recorded: each fault is found in its channel, and said."""

import json

import numpy as np
import pytest

from embridge.device.errors import ConfigError
from embridge.device.signal_check import SignalLimits, check_signal, read_limits
from embridge.firmware_bridge import Block, Gap, LinkStats, Restarted, StreamInfo

RATE_HZ = 2000.0


class ListSource:
    """A `Source` that yields what it is given."""

    how = ""

    def __init__(self, items, **info):
        known = {"n_ch": 4, "rate_hz": RATE_HZ, "samples_per_frame": 20, "unit": "uV"}
        self.info = StreamInfo(**known | {"scale": 0.5, "boot_id": 1} | info)
        self.stats = LinkStats()
        self.items = items

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def stop(self):
        pass

    def blocks(self):
        yield from self.items


def sound(seconds=6.0):
    """Counts of four channels of EMG-like noise, 20 to 450 Hz."""
    random = np.random.default_rng(0)
    return random.normal(0, 60, (int(seconds * RATE_HZ), 4))  # T C


def blocks(counts, rate_hz=RATE_HZ, first=0):
    counts = np.clip(np.rint(counts), -32768, 32767).astype(np.int16)
    for start in range(0, len(counts), 20):
        part = counts[start : start + 20]
        arrived_s = 5.0 + (first + start + len(part)) / rate_hz
        yield Block(first + start, part, arrived_s, seq=(first + start) // 20)


def checked(counts, seconds=5.0, limits=None, **info):
    return check_signal(ListSource(blocks(counts), **info), seconds, limits)


def sine(hz, samples, amplitude):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(samples) / RATE_HZ)


def test_a_sound_signal_is_fit():
    report = checked(sound())
    assert report.fit
    assert report.seconds == 5.0
    assert report.measured_rate_hz == pytest.approx(RATE_HZ)
    assert [round(one.rms) for one in report.channels] == [30] * 4
    assert "fit to record" in report.lines()[-1]
    assert len(report.lines()) == 1 + 4 + 1 + 1


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda x: np.zeros_like(x), "flat"),
        (lambda x: np.full_like(x, 32767), "flat"),
        (lambda x: np.clip(x, -90, 90), "railed"),
        (lambda x: 1000 * x, "railed"),
        (lambda x: x + sine(50, len(x), 200), "50 Hz hum"),
        (lambda x: x + sine(60, len(x), 200), "60 Hz hum"),
        (lambda x: x * 0.01, "below 0.5 uV"),
        (lambda x: x + sine(1, len(x), 20_000), "above 3000 uV"),
    ],
)
def test_a_fault_is_named_in_its_channel_alone(spoil, fault):
    counts = sound()
    counts[:, 2] = spoil(counts[:, 2])
    report = checked(counts)
    assert not report.fit
    assert [one.channel for one in report.channels if one.faults] == [2]
    assert any(text.startswith(fault) for text in report.channels[2].faults)
    assert fault in report.lines()[3]
    assert report.lines()[-1] == "NOT fit to record"


def test_samples_on_the_limit_of_a_converter_of_fewer_bits_are_railed():
    counts = np.clip(sound(), -256, 255)
    counts[::500, 1] = 2047
    report = checked(counts, bits=12)
    assert [one.channel for one in report.channels if one.faults] == [1]
    assert report.channels[1].railed_share == pytest.approx(1 / 500)


def test_an_envelope_may_rest_at_zero_and_has_no_hum():
    counts = np.abs(sound())
    counts[: len(counts) // 2] = 0
    report = checked(counts, envelope=True, unit="V", scale=1e-6)
    assert report.fit
    assert report.channels[0].hum_share is None


def test_size_is_judged_only_in_volts():
    counts = sound()
    assert checked(counts, unit="a.u.", scale=1e6).fit
    assert checked(counts, unit="V", scale=5e-7).fit
    assert not checked(counts, unit="V", scale=1.0).fit


def test_lost_samples_are_a_fault_of_the_stream():
    counts = sound()
    items = [*blocks(counts[:2000]), Gap(2000, 400), *blocks(counts[:9000], first=2400)]
    report = check_signal(ListSource(items), 5.0)
    assert (report.gaps, report.samples_lost) == (1, 400)
    assert report.seconds == pytest.approx(4.8)
    assert len(report.stream_faults) == 1
    assert "4.00% of the samples were lost" in report.stream_faults[0]


def test_a_wrist_that_boots_meanwhile_is_a_fault():
    items = [*blocks(sound(2.0)), Restarted(2), *blocks(sound(4.0))]
    report = check_signal(ListSource(items), 5.0)
    assert "restarted" in report.stream_faults[0]


@pytest.mark.parametrize("off", [0.97, 1.03])
def test_a_rate_that_is_not_the_declared_one_is_a_fault_unless_time_is_not_real(off):
    items = list(blocks(sound(), rate_hz=RATE_HZ * off))
    report = check_signal(ListSource(items), 5.0)
    assert report.measured_rate_hz == pytest.approx(RATE_HZ * off)
    assert f"{RATE_HZ * off:.5g} samples arrive per second" in report.stream_faults[0]
    report = check_signal(ListSource(items), 5.0, judge_rate=False)
    assert report.fit
    assert report.measured_rate_hz is None


def test_a_report_is_plain_json():
    counts = sound()
    counts[:, 0] = 0
    report = json.loads(json.dumps(checked(counts).as_dict()))
    assert report["fit"] is False
    assert report["channels"][0]["faults"]
    assert report["channels"][1]["hum_share"] < 0.5


def test_limits_from_a_file_replace_those_they_name(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_text("rms_low_uv = 40\nhum_share = 0.9\n")
    limits = read_limits(path)
    assert limits == SignalLimits(rms_low_uv=40, hum_share=0.9)
    assert not checked(sound(), limits=limits).fit


@pytest.mark.parametrize("text", ["rms = 3", "hum_share = true", "hum_share = 'x'", "3 = = 4"])
def test_nonsense_limits_are_refused(tmp_path, text):
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"limits\.toml"):
        read_limits(path)


def test_a_stream_that_ends_too_early_is_refused():
    with pytest.raises(ConfigError, match=r"2\.0 s came"):
        checked(sound(2.0), seconds=5.0)


def test_progress_reaches_its_total():
    calls = []
    check_signal(ListSource(blocks(sound())), 5.0, progress=lambda *call: calls.append(call))
    assert calls[-1] == (5, 5, "check")
