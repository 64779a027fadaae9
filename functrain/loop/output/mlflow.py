"""MLflow: a run's records as a run in a tracking store, by default a folder of files."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from functrain.loop.declaring import setting
from functrain.loop.kinds import TEXT, TEXTS_BY_NAME
from functrain.loop.output.log_files import Record
from functrain.loop.output.sinks import FAILED, FINISHED, INTERRUPTED, SinkRun, Tracker
from functrain.loop.output.tensorboard import scalars

FOLDER = "mlruns"
VARIABLE = "MLFLOW_TRACKING_URI"
ALLOWS_FILES = "MLFLOW_ALLOW_FILE_STORE"  # MLflow 3 refuses folders of files without it
MOST_AT_ONCE = 1000  # metrics of a request, by MLflow's REST API
MOST_PARAMS, LONGEST_NAME, LONGEST_VALUE = 100, 250, 6000  # likewise
STATUS = {FINISHED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}


@dataclass(frozen=True, kw_only=True)
class MlflowOptions:
    """How a run stands in MLflow."""

    tracking_uri: str | None = setting(
        None,
        TEXT,
        "the server, data base or folder; default: the variable MLFLOW_TRACKING_URI, or the folder `mlruns` beside the "
        "run directory.",
        bits=False,
    )
    experiment: str = setting("functrain", TEXT, "the experiment, which is made if need be.", bits=False)
    name: str | None = setting(None, TEXT, "the run's name; default: that of the run directory.", bits=False)
    tags: Mapping[str, str] | None = setting(None, TEXTS_BY_NAME, "its tags, by their names.", bits=False)


class _Run:
    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self._client = client
        self.id = run_id
        self.place = f"run {run_id} in {uri}"

    def log(self, records: Sequence[Record], first: int) -> None:  # noqa: ARG002 - MLflow counts steps alone
        """Log the records' numbers at their steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_allowed(name), float(value), now, record["step"])
            for record in records
            for name, value in scalars(record).items()
        ]
        for start in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self.id, metrics=metrics[start : start + MOST_AT_ONCE])

    def close(self, status: str) -> None:
        """Say how it ended."""
        self._client.set_terminated(self.id, STATUS[status])


def _open(options: MlflowOptions, run: SinkRun) -> _Run:
    """A new run, or the one to go on with."""
    given = options.tracking_uri or os.environ.get(VARIABLE)
    uri = given or (run.directory.parent / FOLDER).as_uri()
    with _files_allowed(given is None or "://" not in given or given.startswith("file:")):
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        if run.id is not None:
            try:
                client.update_run(run.id, status="RUNNING")
                return _Run(client, run.id, uri)
            except MlflowException:  # somebody has deleted it, or chosen another store
                pass
        experiment = client.get_experiment_by_name(options.experiment)
        number = client.create_experiment(options.experiment) if experiment is None else experiment.experiment_id
        name = options.name or run.directory.name
        made = client.create_run(number, run_name=name, tags=dict(options.tags or {}))
        params = [Param(_allowed(key)[:LONGEST_NAME], value[:LONGEST_VALUE]) for key, value in _flat(run.config)]
        for start in range(0, len(params), MOST_PARAMS):
            client.log_batch(made.info.run_id, params=params[start : start + MOST_PARAMS])
        return _Run(client, made.info.run_id, uri)


@contextmanager
def _files_allowed(wanted: bool) -> Iterator[None]:
    """Within, MLflow opens a folder of files, if that is what the user wants."""
    before = os.environ.get(ALLOWS_FILES)
    if wanted and before is None:
        os.environ[ALLOWS_FILES] = "true"
    try:
        yield
    finally:
        if wanted and before is None:
            os.environ.pop(ALLOWS_FILES, None)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes.

    Example:
        >>> _allowed("grad/layer.0/norm"), _allowed("a|b")
        ('grad/layer.0/norm', 'a_b')
    """
    return re.sub(r"[^\w./: -]", "_", name)


MLFLOW = Tracker("mlflow", "MLflow", "mlflow", MlflowOptions, _open)
