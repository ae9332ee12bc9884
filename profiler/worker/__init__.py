"""Worker processes: jobs that build, lower, check and measure one case."""
