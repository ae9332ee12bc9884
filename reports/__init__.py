"""Run folders in, statistics, figures and tables out. Runs without torch."""

from mixprof.reports.frame import load

__all__ = ["load"]
