"""Executors: what runs the launches of a sweep. `local` runs them one at a time on this machine."""
