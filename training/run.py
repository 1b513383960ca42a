"""`embridge train`: from a configuration and recordings to a run's folder."""

import json
from pathlib import Path

from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.distributed import device_of, joined, on_first
from embridge.training.phases import train
from embridge.training.run_folder import RunFolder, create_run, open_run
from embridge.training.study import Progress, Study, apply_plan, make_study, read_all


def train_run(
    config: Path,
    overrides: list[str],
    data: Path | None,
    out: Path | None,
    *,
    method: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunFolder:
    """Train into `out` (runs/NAME by default), or go on with the run that is there.

    config: a TOML file or the name of a preset; method: a name of configs/methods, laid over it.
    With `resume` the run's own configuration is used.
    Started by torchrun, this process trains together with the others; one folder is written.
    Raises ConfigError, RecordingError, or Interrupted when stopped.
    """
    preset = PRESETS / f"{config}.toml"
    source = preset if preset.is_file() else config
    extra = [f"data.path={json.dumps(str(data.resolve()))}"] if data else []
    settings = load_config(source, [*overrides, *extra], method)
    folder = out or Path("runs") / settings.name
    if resume:
        if overrides or data:
            raise ConfigError("--resume goes on as before: leave out --data and overrides")
        settings = open_run(folder).config
        if method not in (None, known := settings.method.name):
            raise ConfigError(
                f"{folder}: a run of method {known}; --resume cannot make it {method}"
            )
    with joined(device_of(settings.optim.device)) as part:
        part.rows(settings.optim.batch)
        shown = progress if part.first else None
        made: list[Study] = []
        if not resume:  # the others then read what the first process found out about the recordings
            on_first(lambda: made.append(_created(folder, settings, shown)))
        run = open_run(folder)
        train(run, made[0] if made else open_study(run, shown), resume=resume, progress=shown)
    return run


def _created(folder: Path, settings: Config, progress: Progress | None) -> Study:
    """A new run's folder, and the recordings it will be trained on."""
    if not settings.data.path:
        raise ConfigError("no recordings given; name a folder with --data")
    path = Path(settings.data.path)
    recordings = read_all(path, progress, settings.data)
    study = make_study(settings, recordings, path.name, progress)
    create_run(folder, settings, study.plan)
    return study


def open_study(run: RunFolder, progress: Progress | None = None) -> Study:
    """The recordings a run was made from, split and filtered as they were."""
    data = run.config.data
    recordings = read_all(Path(data.path), progress, data)
    return apply_plan(run.plan, recordings, progress, data.cache_mb)
