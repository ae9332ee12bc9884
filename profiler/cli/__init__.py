"""The command line: the one place that composes models, profiler and reports."""
