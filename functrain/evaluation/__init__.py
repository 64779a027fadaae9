"""Looking at a trained state: metrics, outputs, reports, figures."""

from functrain.evaluation import figures as figures
from functrain.evaluation.metrics import evaluate as evaluate
from functrain.evaluation.prediction import predict as predict
from functrain.evaluation.prediction import predict_with_targets as predict_with_targets
from functrain.evaluation.report import ClassificationReport as ClassificationReport
from functrain.evaluation.report import ClassScores as ClassScores
from functrain.evaluation.report import classification_report as classification_report
