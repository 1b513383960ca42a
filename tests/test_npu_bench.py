"""`embridge bench npu`: both routes of one NPU side by side, every estimate with its model."""

from pathlib import Path
from typing import Any

import pytest

from embridge.benchmarks.npu import npu_table, text
from embridge.device.decision import DecisionRule
from embridge.device.errors import ConfigError
from embridge.device.frontend import FrontEnd
from embridge.device.manifest import STAGE_FILES, EmbeddingSpec, FileEntry, InputSpec, Manifest
from embridge.device.package import Package

MODEL = "ethos-u-vela 5.1.0, Ethos_U55_128, Ethos_U55_High_End_Embedded, Shared_Sram"


def vela(**figures: Any) -> dict[str, Any]:
    return {
        "estimated": True,
        "model": MODEL,
        "inference_us": 20.0,
        "npu_cycles": 9000,
        "total_cycles": 10_000,
        "sram_bytes": 3520,
        "flash_bytes": 5440,
        "dram_bytes": 0,
        "macs": 152_736,
        "operators_npu": 8,
        "operators_cpu": 0,
    } | figures


FACTS = {
    "tflite-int8": {},
    "cortex-m4": {
        "estimated": False,
        "arena_bytes": 8000,
        "arena_includes": "activations",
        "constant_bytes": 8096,
        "macs": 152_096,
    },
    "ethos-u55-128": vela(),
    "ethos-u55-128-executorch": vela(total_cycles=9000, operators_npu=7, operators_cpu=2),
    "ethos-u85-256": vela(total_cycles=5000),
}


def package_of(*stages: str) -> Package:
    kernel = {"op": "k", "dtype_in": "int8", "dtype_out": "int8", "count": 3, "integer": True}
    manifest = Manifest(
        name="tiny",
        created_by={},
        git="abc",
        config={},
        input=InputSpec(channels=2, rate_hz=200, window=4, hop=2, unit="uV", is_envelope=False),
        front_end=FrontEnd(
            rate_hz=200,
            sos=[[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]],
            compression="log",
            compression_floor=1 / 3,
            offset=[0.1, 0.2],
            scale=[1.0, 2.0],
        ),
        embedding=EmbeddingSpec(dim=2, scale=0.01, zero_point=3),
        decision=DecisionRule(
            k=2, min_similarity=0.1, min_vote=0.5, debounce_ms=300, null_gesture="rest"
        ),
        labels=["rest"],
        unseen=[],
        files={STAGE_FILES[stage]: FileEntry(sha256="", bytes=7888) for stage in stages},
        runtime={},
        results={
            "facts": {stage: FACTS[stage] for stage in stages},
            "operators": {stage: [kernel, kernel] for stage in stages},
        },
    )
    return Package(Path("tiny.embridge"), manifest, {}, "f00d")


def test_each_arm_stage_has_a_row_and_other_stages_have_none():
    rows = npu_table(package_of(*FACTS))["stages"]
    assert list(rows) == [
        "cortex-m4",
        "ethos-u55-128",
        "ethos-u55-128-executorch",
        "ethos-u85-256",
    ]
    assert rows["cortex-m4"]["operators_cpu"] == 6
    assert rows["ethos-u55-128"] == vela() | {"route": "tflite", "bytes": 7888}
    assert rows["ethos-u55-128-executorch"]["route"] == "executorch"


def test_both_routes_of_one_npu_are_compared_and_a_single_route_is_not():
    ratios = npu_table(package_of(*FACTS))["executorch_over_tflite"]
    assert list(ratios) == ["ethos-u55-128"]
    assert ratios["ethos-u55-128"]["total_cycles"] == 0.9
    assert ratios["ethos-u55-128"]["dram_bytes"] is None


def test_the_text_names_the_model_of_every_estimate():
    shown = text(npu_table(package_of(*FACTS)))
    for stage in ("ethos-u55-128", "ethos-u55-128-executorch", "ethos-u85-256"):
        assert f"{stage}: estimated by {MODEL}; not measured on hardware" in shown
    assert "cortex-m4: exact" in shown
    assert "x 0.90" in shown


def test_a_package_without_arm_stages_says_how_to_get_them():
    with pytest.raises(ConfigError, match="got tflite-int8; lower the run with `--to ethos-u"):
        npu_table(package_of("tflite-int8"))


def test_a_stage_without_facts_is_refused():
    package = package_of("cortex-m4")
    package.manifest.results["facts"].clear()
    with pytest.raises(ConfigError, match="expected facts and operators of cortex-m4"):
        npu_table(package)
