"""Why a model gives its outputs: attributions, embeddings, attention; and their files."""

from functrain.evaluation.explaining.explanation import METHODS as METHODS
from functrain.evaluation.explaining.explanation import Explanation as Explanation
from functrain.evaluation.explaining.explanation import explain as explain
from functrain.evaluation.explaining.observing import Observed as Observed
from functrain.evaluation.explaining.observing import observe as observe
from functrain.evaluation.explaining.projections import pca as pca
from functrain.evaluation.explaining.projections import tsne as tsne
from functrain.evaluation.explaining.writing import write_explanation as write_explanation
from functrain.evaluation.explaining.writing import write_observed as write_observed
