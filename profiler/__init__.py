"""Profile what a spatial mixer costs: cases in, records out. Importing this loads no torch, nor anything else."""

from importlib import import_module

__all__ = ["ab", "build", "count", "figures", "load", "load_published", "register_flops", "serve_test", "sweep", "time"]


def __getattr__(name: str) -> object:
    if name == "register_flops":  # for a user's module, which a worker imports: without what a parent needs
        return import_module("mixprof.metrics.registered").register_flops
    if name in __all__:
        return getattr(import_module("mixprof.api"), name)
    raise AttributeError(f"mixprof has no '{name}', expected one of {', '.join(__all__)}")
