"""The errors and warnings that functrain raises.

    try:
        result = functrain.fit(state, loader, epochs=10, run_dir="runs/a")
    except functrain.errors.NonFiniteError:
        ...

| class | raised when |
|---|---|
| `FunctrainError` | base class of the errors below |
| `CheckpointError` | a checkpoint or run directory cannot be read, written or used |
| `DamagedCheckpointError` | the bytes of a checkpoint are not those that were written |
| `MismatchError` | a checkpoint belongs to another model or optimizer |
| `RunLockedError` | another process writes to the run directory |
| `RunLostError` | the run directory was deleted or replaced while a run wrote to it |
| `ResumeRefusedError` | `strict_resume=True` and the run would not continue bit for bit |
| `DamagedLogError` | `metrics.jsonl` cannot be read |
| `TrackerError` | Weights & Biases or MLflow, which was asked for, did not start |
| `ConfigError` | a configuration is wrong |
| `DataError` | a loader gives no batch, or a batch does not fit the objective |
| `BatchError` | a batch is not of the form that the objective takes; a `DataError` |
| `WorkerLostError` | a worker process of a loader was killed or ended by itself; a `DataError` |
| `DonatedStateError` | a state is used again after a donating step took over its storage |
| `NoLossError` | a model that computes its loss itself returned none, as detection models do in evaluation mode |
| `MetricError` | a metric found NaN in the predictions, or a target that is no label |
| `NonFiniteError` | the loss or a gradient is not finite |
| `OutOfMemoryError` | a step does not fit into memory |
| `TracingError` | a step cannot be compiled as one graph |
| `Interrupted` | a signal or `max_time` ended `fit`; a `SystemExit`, with the result as `.result` |

| warning | given when |
|---|---|
| `ResumeWarning` | a resumed run may differ from an uninterrupted one |
| `CheckpointWarning` | a checkpoint was skipped, or could not be written for the moment |
| `LogWarning` | a log line could not be written for the moment |
| `DataWarning` | a loader cannot be opened at the restored batch |
| `EngineWarning` | a step is compiled by `torch.compile` alone, as torch lacks what functrain's own engine uses |
| `PatchWarning` | a step is compiled without functrain's patches of torch's compiler, as compiling with them failed |
| `ReleaseWarning` | torch is a release that functrain was not tested with |
| `ShapeWarning` | batches of many shapes are compiled one by one |
| `StoreWarning` | compiled programs cannot be kept for the next start |
"""

from functrain.checkpoint.errors import CheckpointWarning as CheckpointWarning
from functrain.checkpoint.errors import DamagedCheckpointError as DamagedCheckpointError
from functrain.checkpoint.errors import MismatchError as MismatchError
from functrain.checkpoint.errors import RunLockedError as RunLockedError
from functrain.checkpoint.errors import RunLostError as RunLostError
from functrain.compiler.engines import EngineWarning as EngineWarning
from functrain.compiler.patches.patch import PatchWarning as PatchWarning
from functrain.compiler.releases import ReleaseWarning as ReleaseWarning
from functrain.compiler.shapes import ShapeWarning as ShapeWarning
from functrain.compiler.store import StoreWarning as StoreWarning
from functrain.data.iterables import DataWarning as DataWarning
from functrain.data.worker_loss import WorkerLostError as WorkerLostError
from functrain.foundation.errors import BatchError as BatchError
from functrain.foundation.errors import CheckpointError as CheckpointError
from functrain.foundation.errors import ConfigError as ConfigError
from functrain.foundation.errors import DataError as DataError
from functrain.foundation.errors import DonatedStateError as DonatedStateError
from functrain.foundation.errors import FunctrainError as FunctrainError
from functrain.foundation.errors import MetricError as MetricError
from functrain.foundation.errors import NoLossError as NoLossError
from functrain.foundation.errors import NonFiniteError as NonFiniteError
from functrain.foundation.errors import OutOfMemoryError as OutOfMemoryError
from functrain.foundation.errors import TracingError as TracingError
from functrain.loop.output.log_files import DamagedLogError as DamagedLogError
from functrain.loop.output.log_files import LogWarning as LogWarning
from functrain.loop.output.sinks import TrackerError as TrackerError
from functrain.loop.process.signals import Interrupted as Interrupted
from functrain.loop.resume.saving import ResumeRefusedError as ResumeRefusedError
from functrain.loop.resume.saving import ResumeWarning as ResumeWarning
