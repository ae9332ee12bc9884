"""Run folders in, statistics, figures and tables out. Runs without torch."""

from reports.frame import load

__all__ = ["load"]
