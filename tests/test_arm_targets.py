"""Ethos-U and Cortex-M: one command stream, CMSIS-NN kernels only, codes that can be checked."""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn
from torch.export import ExportedProgram

from embridge.device.decision import DecisionRule
from embridge.device.errors import ConfigError, PackageError
from embridge.device.frontend import FrontEnd
from embridge.device.manifest import STAGE_FILES, EmbeddingSpec, FileEntry, InputSpec, Manifest
from embridge.device.package import Package
from embridge.quantize import cortex_reference
from embridge.quantize.cortex_reference import ReferenceEncoder, open_reference, reference_of
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.lower import Artefact, lower_stage
from embridge.quantize.quantizer import QuantizedEncoder, quantize_encoder, state_for_file
from embridge.quantize.targets import arm_graph, cortex_m
from embridge.quantize.targets.table import TARGETS, stages_of
from embridge.training.evaluate import cosine
from embridge.training.watch import WatchEncoder

TFLITE, EXECUTORCH, CORTEX = "ethos-u55-128", "ethos-u55-128-executorch", "cortex-m55"


@pytest.fixture(scope="module")
def quantized(make_windows, encoder: WatchEncoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture(scope="module")
def graph(quantized) -> ExportedProgram:
    return export_graph(quantized.twin)


@pytest.fixture(scope="module")
def artefacts(graph) -> dict[str, Artefact]:
    return {stage: lower_stage(stage, graph) for stage in (TFLITE, EXECUTORCH, CORTEX)}


@pytest.fixture(scope="module")
def references(quantized) -> dict[str, tuple[ReferenceEncoder, bytes]]:
    return {stage: reference_of(quantized, stage) for stage in (CORTEX, EXECUTORCH)}


@pytest.fixture
def changed(quantized) -> Callable[[Callable[[Any], None]], ExportedProgram]:
    """Graph of a copy of the encoder after a change."""

    def make(change: Callable[[Any], None]) -> ExportedProgram:
        twin = copy.deepcopy(quantized.twin)
        change(twin)
        return export_graph(twin)

    return make


def codes_of(encoder: ReferenceEncoder, windows: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.stack([encoder.codes(window) for window in windows]).astype(np.int64)


def stride_of_four(twin: Any) -> None:
    twin.blocks[0].depthwise.stride = (1, 4)


def softmax_at_the_end(twin: Any) -> None:
    twin.output = nn.Sequential(twin.output, nn.Softmax(dim=1), twin.output)


def pool_with_a_scale_of_its_own(twin: Any) -> None:
    twin.pooled = twin.output


def test_preparing_for_arm_changes_no_value(make_windows, graph):
    before = graph.module(check_guards=False)
    after = arm_graph.arm_graph(CORTEX, graph).module(check_guards=False)
    for window in torch.from_numpy(make_windows(7, 16))[:, None, :, None]:
        time_major = window.to(memory_format=torch.channels_last)
        assert torch.equal(before(window), after(time_major))


def test_an_encoder_for_the_npu_is_one_command_stream(artefacts):
    assert [(row.op, row.count) for row in artefacts[TFLITE].audit] == [("ethos-u", 1)]
    rows = {row.op: (row.dtype_in, row.dtype_out) for row in artefacts[EXECUTORCH].audit}
    assert list(rows) == [
        "quantized_decomposed::quantize_per_tensor",
        "delegate EthosUBackend",
        "ethos-u",
        "quantized_decomposed::dequantize_per_tensor",
    ]
    assert rows["ethos-u"] == ("int8", "int8")


@pytest.mark.parametrize(("stage", "on_cpu"), [(TFLITE, 0), (EXECUTORCH, 2)])
def test_figures_of_the_npu_are_estimates_and_name_their_model(quantized, artefacts, stage, on_cpu):
    facts = artefacts[stage].facts
    assert facts["estimated"] is True
    assert facts["model"].startswith("ethos-u-vela 5.1.0, Ethos_U55_128, Ethos_U55_High_End_")
    assert facts["operators_cpu"] == on_cpu
    # A convolution is one operator; the pool takes Vela up to two, and it counts its additions.
    assert 7 <= facts["operators_npu"] <= 8
    pool_macs = quantized.float_encoder.shape.frames() * 32
    assert facts["macs"] == quantized.float_encoder.shape.macs() + pool_macs
    assert 0 < facts["npu_cycles"] <= facts["total_cycles"]
    assert facts["inference_us"] == pytest.approx(facts["total_cycles"] / 500)  # 500 MHz
    assert 0 < facts["sram_bytes"] < 8000
    assert 0 < facts["flash_bytes"] < len(artefacts[stage].data)


def test_cortex_m_runs_kernels_only_and_its_sizes_are_exact(quantized, artefacts):
    assert {row.op.removeprefix("cortex_m::"): row.count for row in artefacts[CORTEX].audit} == {
        "quantize_per_tensor": 1,
        "quantized_conv2d": 4,
        "quantized_depthwise_conv2d": 2,
        "quantized_avg_pool2d": 1,
        "dequantize_per_tensor": 1,
    }
    facts = artefacts[CORTEX].facts
    assert facts["estimated"] is False
    assert facts["macs"] == quantized.float_encoder.shape.macs()
    assert 4 * 8 * 200 < facts["arena_bytes"] < 10_000  # the float32 window is the largest value
    assert facts["constant_bytes"] < len(artefacts[CORTEX].data)


def test_lowering_twice_gives_equal_bytes(graph, artefacts, references):
    assert TARGETS[TFLITE].lower(graph) == (artefacts[TFLITE].data, artefacts[TFLITE].facts)
    for stage, (_, lowered_again) in references.items():
        assert lowered_again == artefacts[stage].data


def test_an_operator_that_vela_leaves_to_the_cpu_is_named(changed):
    with pytest.raises(LoweringError, match=r"got 2 with 1 DEPTHWISE_CONV_2D \(int8") as caught:
        lower_stage(TFLITE, changed(stride_of_four))
    assert "\n" not in str(caught.value)


def test_what_vela_refuses_of_executorch_is_told_in_its_words(changed, capfd):
    with pytest.raises(LoweringError, match=f"{EXECUTORCH}: .*DepthwiseConv2D.* could not run"):
        lower_stage(EXECUTORCH, changed(stride_of_four))
    assert capfd.readouterr().err == ""


def test_an_operator_that_the_partitioner_leaves_in_float_is_named(changed):
    with pytest.raises(LoweringError, match=rf"{EXECUTORCH}: .* 1 aten::_softmax \(float"):
        lower_stage(EXECUTORCH, changed(softmax_at_the_end))


def test_what_the_cortex_m_passes_refuse_is_told_in_their_words(changed):
    with pytest.raises(LoweringError, match=f"{CORTEX}: .*Softmax output scale") as caught:
        lower_stage(CORTEX, changed(softmax_at_the_end))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", [EXECUTORCH, CORTEX])
def test_a_pool_that_would_have_to_requantize_is_refused(changed, stage):
    with pytest.raises(LoweringError, match=f"{stage}: the average pool of module '' goes from"):
        lower_stage(stage, changed(pool_with_a_scale_of_its_own))


def test_a_conv1d_is_refused(graph):
    class Conv1d(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv1d(x, torch.ones(2, 8, 3))

    program = torch.export.export(Conv1d(), (torch.zeros(1, 8, 200),), strict=False)
    with pytest.raises(LoweringError, match="conv1d of module '' would stay in float"):
        arm_graph.require_expressible(CORTEX, program.module(check_guards=False))


def test_an_operator_without_its_mark_is_named(graph):
    with pytest.raises(LoweringError, match="mean of module ''; conv2d of module 'head' would"):
        arm_graph.require_marked(CORTEX, graph)


def test_maps_in_the_memory_order_of_torch_are_refused_before_a_device_does(graph):
    """ExecuTorch's passes say nothing, and its Python kernels do not mind."""
    prepared = arm_graph.arm_graph(CORTEX, graph)
    channels_first = torch.export.export(
        prepared.module(check_guards=False), graph.example_inputs[0], strict=False
    )
    artefact = cortex_m.serialize(cortex_m.compile_program(CORTEX, channels_first))
    with pytest.raises(LoweringError, match=r"expected maps in channels-last memory, but cortex"):
        cortex_m.require_kernels(CORTEX, artefact)


@pytest.mark.parametrize("stage", [TFLITE, EXECUTORCH, "cortex-m4"])
def test_without_the_extra_one_line_says_what_to_install(graph, monkeypatch, stage):
    find = importlib.util.find_spec
    hidden = ("ethosu", "tosa_serializer")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in hidden else find(name, *a)
    )
    with pytest.raises(ConfigError, match=rf"target {stage} needs .*run `pip install 'embridge\["):
        lower_stage(stage, graph)


def test_names_select_both_routes_all_npus_and_all_cpus():
    assert stages_of(["ethos-u55-128"]) == [TFLITE, EXECUTORCH]
    assert stages_of([EXECUTORCH, "cortex-m4"]) == ["cortex-m4", EXECUTORCH]
    assert len(stages_of(["ethos-u"])) == 8
    assert stages_of(["cortex-m"]) == ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"]


@pytest.mark.parametrize(("stage", "share"), [(CORTEX, 0.25), (EXECUTORCH, 0.17)])
def test_codes_are_those_of_fake_quantization_within_one_with_rare_twos(
    make_windows, quantized, references, stage, share, record_property
):
    """Each layer rounds by its own rule, so that one is no bound; seeds 9 and 11 have twos."""
    windows = np.concatenate([make_windows(seed, 128) for seed in (9, 11)])
    codes, expected = codes_of(references[stage][0], windows), quantized.codes(windows)
    differ = np.abs(codes - expected)
    record_property("codes_differ_share", float(np.mean(differ != 0)))
    assert differ.max() <= 2
    assert np.mean(differ > 1) < 0.002  # observed over ten sets of windows: 0.0003 and 0.0001
    assert np.mean(differ != 0) < share  # observed 0.17 to 0.21, and 0.10 to 0.13
    assert cosine(codes, expected)["min"] > 0.9998


def test_embeddings_of_a_reference_are_its_codes_times_the_scale(make_windows, references):
    encoder = references[CORTEX][0]
    (window, *_) = make_windows(3, 2)
    expected = encoder.codes(window) * np.float32(encoder.embedding_scale)
    assert np.array_equal(encoder.embed(window), expected)
    with pytest.raises(ConfigError, match=r"window has shape \(8, 100\), the encoder takes"):
        encoder.codes(window[:, :100])


def test_the_pool_rounds_raw_codes_as_cmsis_nn_does():
    pairs = torch.tensor([[0, 1], [2, 3], [0, -1], [-2, -3], [-128, -127], [5, 5]])
    x = pairs.to(torch.int8)[None, :, None]  # 1 C 1 T
    pooled = cortex_reference.average_pool(x, [1, 2], [1, 1])
    assert pooled.flatten().tolist() == [1, 3, -1, -3, -128, 5]


@pytest.fixture(scope="module")
def package(quantized, artefacts) -> Package:
    state = state_for_file(quantized)
    files = {STAGE_FILES[stage]: artefact.data for stage, artefact in artefacts.items()}
    for stage, prefix in (("float", "float."), ("fakequant", "twin.")):
        part = {name: value for name, value in state.items() if name.startswith(prefix)}
        files[STAGE_FILES[stage]] = save(part)
    manifest = Manifest(
        name="tiny",
        created_by={},
        git="abc",
        config={
            "recipe": "w8a8",
            "watch": {"stem": (16, 9, 2), "blocks": [(24, 9, 2), (32, 5, 2)]},
        },
        input=InputSpec(channels=8, rate_hz=200, window=200, hop=50, unit="uV", is_envelope=False),
        front_end=FrontEnd(
            rate_hz=200,
            sos=[[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]],
            compression="log",
            compression_floor=1 / 3,
            offset=[0.0] * 8,
            scale=[1.0] * 8,
        ),
        embedding=EmbeddingSpec(dim=16, scale=quantized.scale, zero_point=quantized.zero_point),
        decision=DecisionRule(
            k=2, min_similarity=0.1, min_vote=0.5, debounce_ms=300, null_gesture="rest"
        ),
        labels=["rest"],
        unseen=[],
        files={name: FileEntry(sha256="", bytes=len(data)) for name, data in files.items()},
        runtime={},
        results={},
    )
    return Package(Path("tiny.embridge"), manifest, files, "")


def test_a_package_is_run_by_the_program_it_holds(make_windows, package, references):
    windows = make_windows(5, 8)
    opened = open_reference(package, CORTEX)
    assert np.array_equal(codes_of(opened, windows), codes_of(references[CORTEX][0], windows))


def test_a_package_with_another_program_is_refused(package):
    name = STAGE_FILES[CORTEX]
    other = replace(package, files={**package.files, name: package.files[name][:-1] + b"\x01"})
    with pytest.raises(PackageError, match=r"tiny\.embridge: expected the artefact of") as caught:
        open_reference(other, CORTEX)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", [TFLITE, "tflite-int8"])
def test_a_stage_without_a_reference_says_which_have_one(package, stage):
    with pytest.raises(ConfigError, match="no reference on this host; choose one of cortex-m4, "):
        open_reference(package, stage)
