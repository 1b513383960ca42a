"""`embridge eval --table`: runs measured as the paper measures, beside the published figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embridge.benchmarks.evaluation import Evaluation, evaluate_run
from embridge.benchmarks.probing import POSE, ProbeReport, probe_run
from embridge.device.errors import ConfigError
from embridge.training.paper.confusion import Measured
from embridge.training.paper.published import OwnRow, PaperTable, paper_table
from embridge.training.run_folder import RunFolder, open_run
from embridge.training.study import Progress

POSE_ONLY = ("pose_mae",)  # phases of a run that is measured as the upper bound
PROTOCOL = (
    "ZS: zero-shot, kNN over pose embeddings of the training users, seen and unseen gestures each "
    "among themselves, over windows. LP: logistic regression on frozen features, taught by "
    "training users (seen) or by the other half of the test users (unseen)."
)


@dataclass(frozen=True)
class Judged:
    """One run: zero-shot where its method is aligned with poses, and the linear probe."""

    run: RunFolder
    evaluation: Evaluation | None
    probe: ProbeReport

    @property
    def stage(self) -> str:
        """Which encoder of the run."""
        return self.probe.stage

    def figures(self) -> dict[str, Measured | None]:
        """By `published.COLUMNS`."""
        shot = self.evaluation.figures.figures() if self.evaluation else {}
        return {
            "lp_seen": self._probed("seen"),
            "zs_seen": shot.get("seen"),
            "lp_unseen": self._probed("unseen"),
            "zs_unseen": shot.get("unseen"),
        }

    def row(self) -> OwnRow:
        """For the paper's table."""
        figures, data = self.figures(), self.probe.data
        users = max((len(f.per_user) for f in figures.values() if f), default=0)
        return OwnRow(
            run=self.run.path.name,
            method=self.run.config.method.name,
            stage=self.stage,
            data=data.name,
            synthetic=data.synthetic,
            tier="-" if self.stage == POSE else self.probe.tier,
            users=users,
            figures=figures,
        )

    def _probed(self, group: str) -> Measured | None:
        row = self.probe.row(group)
        return row.probe.figure() if row else None


def judge_run(run: RunFolder, data: Path, stage: str, tier: str) -> Judged:
    """Measure a run; one that trained the pose encoder alone is measured as the upper bound."""
    method = run.config.method
    if method.phases == POSE_ONLY:
        return Judged(run, None, probe_run(run, data, POSE, tier))
    evaluation = evaluate_run(run, data, stage, tier) if method.aligned else None
    return Judged(run, evaluation, probe_run(run, data, stage, tier))


def table_of_runs(
    targets: Sequence[Path],
    data: Path,
    stage: str,
    tier: str,
    progress: Progress | None = None,
) -> PaperTable:
    """The paper's table with these runs in it; ConfigError for anything but folders of runs."""
    for target in targets:
        if not target.is_dir():
            raise ConfigError(
                f"{target}: the table compares trained runs: expected the folder of a run, got "
                "a file or nothing"
            )
    rows = []
    for number, target in enumerate(targets):
        rows.append(judge_run(open_run(target), data, stage, tier).row())
        if progress:
            progress(number + 1, len(targets), f"judge {target.name}")
    return paper_table(rows, PROTOCOL)
