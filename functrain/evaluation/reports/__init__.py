"""Reports of an evaluation, one for each task; an objective names its own."""

from functrain.evaluation.reports.report import Number as Number
from functrain.evaluation.reports.report import Report as Report
from functrain.evaluation.reports.report import Table as Table
from functrain.evaluation.reports.task import TaskCollector as TaskCollector
