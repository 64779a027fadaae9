"""functrain: functional training for PyTorch.

    state = functrain.init_state(model, functrain.classification(), functrain.optim.adamw(1e-3))
    result = functrain.fit(state, train_loader, eval_loader=val_loader, epochs=10, run_dir="runs/digits")

`import functrain` loads torch and optree only; orbax, matplotlib and scikit-learn come with first use.
"""

from functrain import distributed as distributed
from functrain import optim as optim
from functrain.compiler import compile as compile
from functrain.checkpoint import Checkpointer as Checkpointer
from functrain.loop import Event as Event
from functrain.loop import FitResult as FitResult
from functrain.loop import Interrupted as Interrupted
from functrain.loop import ResumeWarning as ResumeWarning
from functrain.loop import Stop as Stop
from functrain.loop import fit as fit
from functrain.loop import on as on
from functrain.objectives import Loss as Loss
from functrain.objectives import classification as classification
from functrain.objectives import language_modelling as language_modelling
from functrain.objectives import losses as losses
from functrain.objectives import regression as regression
from functrain.objectives import segmentation as segmentation
from functrain.objectives import supervised as supervised
from functrain.optim import schedules as schedules
from functrain.step import TrainState as TrainState
from functrain.step import diff_states as diff_states
from functrain.step import eval_step as eval_step
from functrain.step import init_state as init_state
from functrain.step import to_module as to_module
from functrain.step import train_step as train_step
