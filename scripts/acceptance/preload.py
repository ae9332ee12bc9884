"""What the server of probes loads before it forks: none of it may touch CUDA, and what is missing fails its probes."""

import contextlib
import importlib

for _name in ("torch", "mixprof.data.types", "mixprof.lowerings", "mixprof.metrics.latency"):
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
