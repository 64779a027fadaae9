"""Parameters and optimizer states in other people's files, and the way back."""

from functrain.checkpoint.foreign.archive import Archive as Archive
from functrain.checkpoint.foreign.archive import open_archive as open_archive
from functrain.checkpoint.foreign.archive import write_archive as write_archive
from functrain.checkpoint.foreign.safetensors_format import read_safetensors as read_safetensors
from functrain.checkpoint.foreign.safetensors_format import write_safetensors as write_safetensors
from functrain.checkpoint.foreign.state_dicts import load_state_dict as load_state_dict
from functrain.checkpoint.foreign.states import init_from as init_from
from functrain.checkpoint.foreign.states import load_torch as load_torch
from functrain.checkpoint.foreign.states import save_safetensors as save_safetensors
from functrain.checkpoint.foreign.states import save_torch as save_torch
