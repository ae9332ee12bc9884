"""One engine for all resolutions of a service: built when the first comes, bound to the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mixprof import lowerings
from mixprof.data.case import Case
from mixprof.data.errors import Unsupported, is_out_of_memory, one_line
from mixprof.data.json import digest
from mixprof.lowerings import Target
from mixprof.lowerings import free as engines
from mixprof.machine import process, testbed
from mixprof.metrics import Subject
from mixprof.models import specialization
from mixprof.worker import calibration, modules, pin
from mixprof.worker.reference import Reference


def lowering(request: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Subject]:
    """A function of a size ("case", "reference") that returns its subject, of the one engine that all share."""
    kept: list[engines.Bind] = []

    def lowered(size: Mapping[str, Any]) -> Subject:
        start, case = time.perf_counter(), Case.from_json(size["case"])
        reference = Reference.read(Path(size["reference"]))
        if not kept:
            kept.append(_engine({**request, **size}, case, reference))
        with torch.no_grad():
            bound = kept[0](tuple(reference.inputs))
        bound = replace(bound, build_s=time.perf_counter() - start)
        expected = None if reference.expected is None else [tensor.clone() for tensor in reference.expected]
        return Subject(
            case, bound, expected, reference.tolerance, reference.of_ends, differentiates=reference.differentiates
        )

    return lowered


def _engine(request: Mapping[str, Any], case: Case, reference: Reference) -> engines.Bind:
    """The engine, built with one resolution's inputs. Unsupported where its axes cannot be free."""
    source, settings = request["source"], request["measure"]
    _, options = lowerings.parse(case.lowering)
    pin.prepare(case, settings["threads"])
    built = modules.build(source, case)
    pin.prepare(case, settings["threads"])
    modules.load_state(built.module, reference.state)
    key = digest([case.to_json(), source["factory"], source["arguments"], testbed.versions(), "free"])
    name, images = case.lowering.split(":")[0], built.example.images
    target = Target(
        case.device, case.dtype, case.layout, options, settings["threads"], Path(request["cache"]), images, key, name
    )
    target = calibration.calibrated(target, settings.get("calibration"), reference.inputs, case)
    module = modules.specialize(source, built.module, case.lowering, None, case.device)
    if source["specialize"] is not None:
        with refusing(case.model):
            specialization.free_resolution(module)
    module = lowerings.convert(module, process.torch_dtype(case.dtype))
    with torch.no_grad(), refusing(f"lowering '{case.lowering}': no engine of free height and width"):
        return engines.lower(case.lowering, built.example.bind(module), tuple(reference.inputs), target)


def refused(subject: Subject) -> contextlib.AbstractContextManager[None]:
    """Unsupported for a resolution that the engine does not take."""
    height, width = subject.case.resolution
    return refusing(f"lowering '{subject.case.lowering}': one engine does not run at {height}x{width}")


@contextlib.contextmanager
def refusing(words: str) -> Iterator[None]:
    """Unsupported in these words for whatever error an engine raises, but for want of memory."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:  # each runtime has classes of its own
        if is_out_of_memory(error):
            raise
        raise Unsupported(f"{words} ({one_line(error)[:300]}): use --engines each") from error
