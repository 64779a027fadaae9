"""Predictions from files into files: inputs of several formats, fixed shapes, post-processing."""

from functrain.evaluation.predicting.masks import Postprocessing as Postprocessing
from functrain.evaluation.predicting.masks import postprocessing as postprocessing
from functrain.evaluation.predicting.of_members import predict_each_of_members as predict_each_of_members
from functrain.evaluation.predicting.sources import read_inputs as read_inputs
from functrain.evaluation.predicting.streaming import Prediction as Prediction
from functrain.evaluation.predicting.streaming import predict_each as predict_each
from functrain.evaluation.predicting.writers import write_predictions as write_predictions
