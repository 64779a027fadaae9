"""Looking at a trained state: metrics, outputs, reports, figures."""

from functrain.evaluation import figures as figures
from functrain.evaluation.archived import ArchivedModel as ArchivedModel
from functrain.evaluation.archived import load_archive as load_archive
from functrain.evaluation.comparing import compare_models as compare_models
from functrain.evaluation.comparing import compare_reports as compare_reports
from functrain.evaluation.comparing import write_comparison as write_comparison
from functrain.evaluation.ensemble import EnsembleResult as EnsembleResult
from functrain.evaluation.ensemble import evaluate_ensemble as evaluate_ensemble
from functrain.evaluation.explaining import Explanation as Explanation
from functrain.evaluation.explaining import explain as explain
from functrain.evaluation.explaining import observe as observe
from functrain.evaluation.explaining import write_explanation as write_explanation
from functrain.evaluation.explaining import write_observed as write_observed
from functrain.evaluation.layers_over_epochs import layer_statistics as layer_statistics
from functrain.evaluation.metrics import evaluate as evaluate
from functrain.evaluation.prediction import predict as predict
from functrain.evaluation.prediction import predict_with_targets as predict_with_targets
from functrain.evaluation.reporting import evaluation_report as evaluation_report
from functrain.evaluation.reports import Report as Report
from functrain.evaluation.writing import write_report as write_report
