"""What a case's forward ran, as its record keeps it: profiled after everything that is timed or measured."""

import contextlib
from pathlib import Path

import torch

from mixprof import lowerings
from mixprof.data.case import is_simulated
from mixprof.data.errors import one_line
from mixprof.data.json import Json, to_builtins
from mixprof.metrics import Subject
from mixprof.metrics.ran import profiled, ran, scopes


def proof(subject: Subject, module: torch.nn.Module | None, trace: str | None) -> Json:
    """The kernels of one forward, or why there are none. module: one of ours, by whose parts roles are told.

    Nothing for what torch does not run, or a simulated device, whose kernels nobody ran.
    """
    case = subject.case
    if not subject.lowered.runs_in_torch or is_simulated(case.device):
        return {}
    path = None if trace is None or Path(trace).exists() else Path(trace)
    # In a graph or a compiled forward a module's calls are gone, and a hook would have it compiled anew.
    told = None if lowerings.layers_of(case.lowering) != "operators" else module
    try:
        with contextlib.ExitStack() as stack:
            places = {} if told is None else stack.enter_context(scopes(told))
            if told is not None:
                subject.forward()  # ranges cost most the first time
            events = profiled(subject.forward, case.device, path)
        return {"ran": to_builtins(ran(events, places, wide=case.dtype in ("float32", "tf32")))}
    except RuntimeError as error:  # of a profiler that this machine does not let in
        return {"ran_missing": one_line(error)}
