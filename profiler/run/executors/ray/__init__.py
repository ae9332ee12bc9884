"""Cases as tasks of a Ray cluster: a whole GPU each, or a whole node where the CPU is timed."""
