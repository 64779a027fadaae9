"""Several models on the same examples: numbers side by side, figures, paired tests."""

from functrain.evaluation.comparing.comparison import Comparison as Comparison
from functrain.evaluation.comparing.comparison import compare_reports as compare_reports
from functrain.evaluation.comparing.files import comparison_values as comparison_values
from functrain.evaluation.comparing.files import write_comparison as write_comparison
from functrain.evaluation.comparing.files import write_tables as write_tables
from functrain.evaluation.comparing.models import compare_models as compare_models
from functrain.evaluation.comparing.tables import PairedTest as PairedTest
