"""The command line: the one place that composes models, profiler and reports."""

LATENCY_GATE = "latency_gate"  # the fixture, its marker, its report section and its property in JUnit XML
