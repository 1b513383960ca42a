"""The manifest of a model package: every number the runtime needs, typed and checked."""

import re
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from embridge.device.decision import DecisionRule
from embridge.device.frontend import FrontEnd

SCHEMA: Final = 1
CORTEX_CPUS = ("m4", "m7", "m33", "m55")
ETHOS_NPUS = ("u55-128", "u55-256", "u65-256", "u85-256")
STAGE_FILES = {
    "float": "artefacts/float.safetensors",
    "fakequant": "artefacts/fakequant.safetensors",
    "executorch-fp32": "artefacts/model_fp32.pte",
    "executorch-int8": "artefacts/model_int8.pte",
    "tflite-fp32": "artefacts/model_fp32.tflite",
    "tflite-int8": "artefacts/model_int8.tflite",
    "onnx-fp32": "artefacts/model_fp32.onnx",
    "onnx-int8": "artefacts/model_int8.onnx",
    **{f"cortex-{cpu}": f"artefacts/cortex-{cpu}.pte" for cpu in CORTEX_CPUS},
    **{f"ethos-{npu}": f"artefacts/ethos-{npu}.tflite" for npu in ETHOS_NPUS},
    **{f"ethos-{npu}-executorch": f"artefacts/ethos-{npu}.pte" for npu in ETHOS_NPUS},
}
INT8_STAGES = tuple(stage for stage in STAGE_FILES if stage != "float" and "-fp32" not in stage)
RUNTIME_STAGES = ("executorch-fp32", "executorch-int8", "tflite-fp32", "tflite-int8")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Part):
    """The window: (channels, window) samples, a new one every `hop` samples."""

    channels: int = Field(gt=0)
    rate_hz: float = Field(gt=0)
    window: int = Field(gt=0)
    hop: int = Field(gt=0)
    dtype: Literal["float32"] = "float32"
    layout: Literal["CT"] = "CT"
    unit: str
    is_envelope: bool

    @property
    def hop_ms(self) -> float:
        """Time between two decisions."""
        return 1000 * self.hop / self.rate_hz


class EmbeddingSpec(_Part):
    """The embedding: `dim` int8 codes, real = (code - zero_point) * scale.

    queries: how many such vectors a window gives; the nearest of them counts
    """

    dim: int = Field(gt=0)
    queries: int = Field(1, gt=0)
    scale: float = Field(gt=0)
    zero_point: int


class ParityLimits(_Part):
    """What `embridge parity` refuses; the graph is the exported one, run by torch.

    *_max_lsb: by how much a code may differ; *_same_top1: least share of equal decisions
    fakequant_graph_codes_differ_share: of codes that fake quantization and the graph may not share
    graph_*: an int8 artefact for this machine against the graph, which sums in float
    backends_*: two such artefacts against each other
    mcu_*: a Cortex-M or Ethos-U artefact, run by its reference kernels, against any other;
        CMSIS-NN rounds twice where the others round once
    cosine_to_float_mean, cosine_to_float_p01: of fake quantization and every int8 artefact
    float_cosine_min: of every float32 artefact, to the float network
    """

    fakequant_graph_codes_differ_share: float = Field(0.0, ge=0, le=1)
    graph_max_lsb: int = Field(2, ge=0)
    graph_same_top1: float = Field(0.999, ge=0, le=1)
    backends_max_lsb: int = Field(1, ge=0)
    backends_same_top1: float = Field(0.999, ge=0, le=1)
    mcu_max_lsb: int = Field(4, ge=0)
    mcu_same_top1: float = Field(0.95, ge=0, le=1)
    cosine_to_float_mean: float = Field(0.999, ge=-1, le=1)
    cosine_to_float_p01: float = Field(0.995, ge=-1, le=1)
    float_cosine_min: float = Field(0.9999, ge=-1, le=1)


class FileEntry(_Part):
    """One file of the package."""

    sha256: str
    bytes: int


class Manifest(_Part):
    """Contents of `manifest.json`."""

    schema_version: Literal[1] = SCHEMA
    name: str
    created_by: dict[str, str]
    git: str
    encoder: Literal["watch", "base"] = "watch"
    config: dict[str, Any]
    input: InputSpec
    front_end: FrontEnd
    embedding: EmbeddingSpec
    decision: DecisionRule
    parity: ParityLimits = ParityLimits()
    labels: list[str]
    unseen: list[str]
    files: dict[str, FileEntry]
    runtime: dict[str, str]
    results: dict[str, Any]

    @field_validator("files")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for path in files:
            if not re.fullmatch(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+\.[A-Za-z0-9]+", path):
                raise ValueError(f"path {path!r} leaves the package")
        return files

    @property
    def stages(self) -> list[str]:
        """Stages whose artefact the package carries."""
        return [stage for stage, path in STAGE_FILES.items() if path in self.files]
