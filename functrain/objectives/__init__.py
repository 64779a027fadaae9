"""What is minimised: batches, losses, objectives and the sums behind metrics."""

from functrain.metrics.totals import Totals as Totals
from functrain.objectives import losses as losses
from functrain.objectives.combined import learned_terms as learned_terms
from functrain.objectives.combined import weighted_sum as weighted_sum
from functrain.objectives.composing import composed as composed
from functrain.objectives.distilling import distillation as distillation
from functrain.objectives.labelled import binary_classification as binary_classification
from functrain.objectives.labelled import classification as classification
from functrain.objectives.labelled import language_modelling as language_modelling
from functrain.objectives.labelled import segmentation as segmentation
from functrain.objectives.learned import LearnedWeights as LearnedWeights
from functrain.objectives.loss import Loss as Loss
from functrain.objectives.model_losses import model_loss as model_loss
from functrain.objectives.reconstruction import masked_reconstruction as masked_reconstruction
from functrain.objectives.supervised import regression as regression
from functrain.objectives.supervised import supervised as supervised
from functrain.objectives.terms import Pass as Pass
from functrain.objectives.terms import contrastive as contrastive
from functrain.objectives.terms import l1_penalty as l1_penalty
from functrain.objectives.terms import l2_penalty as l2_penalty
from functrain.objectives.terms import term as term
