"""`embridge train`: from a configuration and recordings to a run's folder."""

import json
from pathlib import Path

from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, load_config
from embridge.training.phases import train
from embridge.training.run_folder import RunFolder, create_run, open_run
from embridge.training.study import Progress, Study, apply_plan, make_study, read_all


def train_run(
    config: Path,
    overrides: list[str],
    data: Path | None,
    out: Path | None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunFolder:
    """Train into `out` (runs/NAME by default), or go on with the run that is there.

    config: a TOML file or the name of a preset. With `resume` the run's own configuration is used.
    Raises ConfigError, RecordingError, or Interrupted when stopped.
    """
    preset = PRESETS / f"{config}.toml"
    source = preset if preset.is_file() else config
    extra = [f"data.path={json.dumps(str(data.resolve()))}"] if data else []
    settings = load_config(source, [*overrides, *extra])
    folder = out or Path("runs") / settings.name
    if resume:
        if overrides or data:
            raise ConfigError("--resume goes on as before: leave out --data and overrides")
        run = open_run(folder)
        study = open_study(run, progress)
    else:
        if not settings.data.path:
            raise ConfigError("no recordings given; name a folder with --data")
        path = Path(settings.data.path)
        study = make_study(settings, read_all(path, progress), path.name)
        run = create_run(folder, settings, study.plan)
    train(run, study, resume=resume, progress=progress)
    return run


def open_study(run: RunFolder, progress: Progress | None = None) -> Study:
    """The recordings a run was made from, split and filtered as they were."""
    return apply_plan(run.plan, read_all(Path(run.config.data.path), progress))
