"""A report as files."""

from functrain.evaluation.writing.cells import text_of as text_of
from functrain.evaluation.writing.files import INTERVAL as INTERVAL
from functrain.evaluation.writing.files import write_numbers as write_numbers
from functrain.evaluation.writing.files import write_report as write_report
