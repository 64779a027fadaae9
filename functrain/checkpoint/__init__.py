"""Any tree of tensors and scalars <-> disk, through orbax: integrity, retention, fallback."""

from functrain.checkpoint.checkpointer import Checkpointer as Checkpointer
from functrain.checkpoint.errors import CheckpointWarning as CheckpointWarning
from functrain.checkpoint.errors import DamagedCheckpointError as DamagedCheckpointError
from functrain.checkpoint.errors import MismatchError as MismatchError
from functrain.checkpoint.errors import RunLockedError as RunLockedError
from functrain.checkpoint.errors import RunLostError as RunLostError
from functrain.checkpoint.foreign import init_from as init_from
from functrain.checkpoint.foreign import load_state_dict as load_state_dict
from functrain.checkpoint.foreign import load_torch as load_torch
from functrain.checkpoint.foreign import read_safetensors as read_safetensors
from functrain.checkpoint.foreign import save_safetensors as save_safetensors
from functrain.checkpoint.foreign import save_torch as save_torch
from functrain.checkpoint.foreign import write_safetensors as write_safetensors
from functrain.checkpoint.info import CheckpointInfo as CheckpointInfo
from functrain.checkpoint.info import LeafInfo as LeafInfo
from functrain.checkpoint.info import read_info as read_info
from functrain.checkpoint.lock import RunLock as RunLock
from functrain.checkpoint.lock_owner import LockOwner as LockOwner
from functrain.checkpoint.orbax_io import import_orbax as import_orbax
from functrain.checkpoint.reader import Restored as Restored
from functrain.checkpoint.reader import read_arrays as read_arrays
from functrain.checkpoint.reader import read_checkpoint as read_checkpoint
from functrain.checkpoint.reader import verify_checkpoint as verify_checkpoint
from functrain.checkpoint.verify import CheckpointVerdict as CheckpointVerdict
from functrain.checkpoint.verify import VerifyReport as VerifyReport
from functrain.checkpoint.verify import verify_checkpoints as verify_checkpoints
