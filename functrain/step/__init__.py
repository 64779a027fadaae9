"""The heart: the training state and the pure steps."""

from functrain.step.difference import Difference as Difference
from functrain.step.difference import diff_states as diff_states
from functrain.step.evaluate import Evaluation as Evaluation
from functrain.step.evaluate import eval_step as eval_step
from functrain.step.init_state import init_state as init_state
from functrain.step.members.cores import PerMember as PerMember
from functrain.step.members.stack import stack as stack
from functrain.step.members.stack import unstack as unstack
from functrain.step.scaling import LossScaling as LossScaling
from functrain.step.state import TrainState as TrainState
from functrain.step.state_digest import digest as digest
from functrain.step.to_module import to_module as to_module
from functrain.step.train import train_step as train_step
