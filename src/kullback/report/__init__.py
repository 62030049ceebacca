"""One self-contained HTML file that shows what a model learnt and how far to trust it."""

from __future__ import annotations

from kullback.report.content import (
    ClassBalance,
    ColumnSummary,
    DataSummary,
    HardExample,
    LossSummary,
    PerClass,
    ReliabilityBins,
    ReportContent,
    RunSummary,
    TestMetrics,
    TrainingCurve,
)
from kullback.report.render import render_report

__all__ = [
    "ClassBalance",
    "ColumnSummary",
    "DataSummary",
    "HardExample",
    "LossSummary",
    "PerClass",
    "ReliabilityBins",
    "ReportContent",
    "RunSummary",
    "TestMetrics",
    "TrainingCurve",
    "render_report",
]
