"""Formulas that were derived before: those of the registered models come with the package, others are kept on disk.

A formula is stored under its model's name, with a hash of the sources that it was derived from. While these are as
they were it is taken as it is; after any edit it is compared with counts at a few points, and derived anew only where
it is refuted. A user's own module can import anything, so its formulas are not kept.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixprof.data import cache
from mixprof.data.case import STEP
from mixprof.data.files import write_whole
from mixprof.data.json import digest
from mixprof.plan.axes import Source
from mixprof.symbolic.derive import COSTS, Formulas
from mixprof.symbolic.formula import Formula

SHIPPED = Path(__file__).with_name("registered.json")
PACKAGE = Path(__file__).parents[1]
COUNTERS = ("flops", "fused_costs", "operator_costs", "step_costs", "traffic")
SOURCES = ("models/*.py", "models/mixers/*.py", *(f"metrics/{name}.py" for name in COUNTERS))
FORM = 2  # of the JSON below
Fields = dict[str, Any]  # JSON: formulas, a file of them, a worker's answer
Ask = Callable[[Fields | None], Fields]  # formulas that may be out of date -> a worker's answer


def to_json(formulas: Formulas) -> Fields:
    return {**{name: getattr(formulas, name).to_json() for name in COSTS}, "proven": formulas.proven}


def from_json(fields: Fields) -> Formulas:
    return Formulas(**{name: Formula.from_json(fields[name]) for name in COSTS}, proven=fields["proven"])


def key(source: Source, step: str = STEP) -> str | None:
    """The name that the formulas of a model's step are stored under; None for those that are not."""
    if source.factory != "mixprof.models:build" or source.user:
        return None
    return source.arguments["name"] + ("" if step == STEP else f" {step}")


@functools.cache
def evidence() -> str:
    """The hash of all code that can change a count, and the version of torch."""
    whole = hashlib.sha256(importlib.metadata.version("torch").partition("+")[0].encode())
    for path in sorted(path for pattern in SOURCES for path in PACKAGE.glob(pattern)):
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


@functools.cache
def shipped() -> Fields:
    """The file that comes with the package: `form`, `evidence`, and `formulas` by the model's name."""
    stored: Fields = json.loads(SHIPPED.read_text())
    return stored


def find(source: Source, ask: Ask, step: str = STEP) -> tuple[Formulas | None, str | None]:
    """The formulas of a model's step, or the reason why it has none. ask: has a worker check or derive them."""
    name = key(source, step)
    stored, is_current = (None, False) if name is None else _stored(name)
    if stored is not None and is_current:
        return from_json(stored), None
    answer = ask(stored)
    if answer["status"] != "ok":
        return None, answer["reason"]
    if name is not None:
        _keep(name, answer["formulas"])
    return from_json(answer["formulas"]), None


def _stored(name: str) -> tuple[Fields | None, bool]:
    """Formulas from the cache or the package, and whether they are of the sources as they are now."""
    for stored in (_read(name), shipped()):
        if stored.get("form") == FORM and name in stored["formulas"]:
            return stored["formulas"][name], stored["evidence"] == evidence()
    return None, False


def _path(name: str) -> Path:
    return cache.folder() / "formulas" / f"{digest(name)}.json"


def _read(name: str) -> Fields:
    """The content of a model's file in the cache; {} for none, and for one that is not whole."""
    try:
        cache.own_folder(_path(name).parent)
        stored: Fields = json.loads(_path(name).read_text())
        from_json(stored["formulas"][name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return stored


def _keep(name: str, formulas: Fields) -> None:
    with contextlib.suppress(OSError):  # a plan needs no cache
        cache.own_folder(_path(name).parent)
        write_whole(_path(name), written({name: formulas}).encode())


def written(formulas: dict[str, Fields]) -> str:
    """The text of a file of formulas, a line a model."""
    lines = [f"{json.dumps(name)}: {json.dumps(fields, ensure_ascii=False)}" for name, fields in formulas.items()]
    body = ",\n".join(lines)
    return f'{{"form": {FORM}, "evidence": "{evidence()}", "formulas": {{\n{body}\n}}}}\n'
