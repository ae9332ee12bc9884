"""Every kind of Python model through the worker's count job: parameters, MACs, where they were counted, refusals."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mixprof
import people_calls
import people_files
from mixprof import models
from mixprof.data.case import Case
from mixprof.data.errors import UsageError
from mixprof.plan.axes import expand
from mixprof.plan.files import Given
from mixprof.plan.given import parse
from mixprof.plan.settings import Axes, Measure
from mixprof.run.client import Origin
from mixprof.run.session import refuse_unused, session
from mixprof.worker import graphs
from people import KINDS, Kind, layer

HERE = Path(__file__).parent
# Where a kind's code can run at all: its tensors are none of the module's, or what it does depends on values.
ON_FAKE = {"cells", "plain_tensors", "cached_table", "sparse_graph", "guided"}
ON_CPU = {"detector", "experts", "item", "branch", "boolean_mask", "values", "frozen"}


@pytest.fixture(scope="module")
def asked():
    """One server for all, whose workers import from here."""
    with session(Measure(), models, side=Origin(folder=HERE)) as one:
        yield one


def costs(asked, case, source, **more) -> dict:
    """The fields of the answer of the count job."""
    return dataclasses.asdict(asked.count(case, source, **more))


def counted(asked, model: str, options: tuple[str, ...] = (), **axes) -> dict:
    """What the count job says of a model's one case; UsageError becomes a status."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    asked.given = Given(fed=parse([given["--input"]] if "--input" in given else []))
    axes |= {"channels": (int(given["--channels"]),)} if "--channels" in given else {}
    try:
        entry = expand([Axes(models=(model,), devices=("cpu",), **axes)], asked.describe, ["cpu"])[0]
        refuse_unused(asked.given, [entry])
    except UsageError as error:
        return {"status": "refused", "reason": str(error)}
    return costs(asked, entry.case, entry.source)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_counted_as_its_closed_form_says(asked, kind: Kind):
    counts = counted(asked, kind.model, kind.options, batches=(kind.batch,), resolutions=((kind.side, kind.side),))
    if counts["status"] != "ok":
        assert "ok" not in kind.status or len(kind.status) > 1, counts["reason"]
        assert re.search(kind.says, counts["reason"])
        assert "\n" not in counts["reason"]
        return
    assert counts["macs"] == kind.macs
    assert bool(counts["uncounted_ops"]) == kind.at_least, counts["uncounted_ops"]
    assert kind.params in (None, counts["params"])
    name = kind.model.split(":")[1]
    assert counts["counted_on"] == ("fake" if name in ON_FAKE else "cpu" if name in ON_CPU else "meta")


@pytest.mark.parametrize("name", people_calls.MACS)
def test_a_function_is_counted_fused_or_not(asked, name: str):
    counts = counted(asked, f"call:people_calls:{name}")
    assert (counts["status"], counts.get("macs")) == ("ok", people_calls.MACS[name])
    assert counts["uncounted_ops"] == ()


@pytest.mark.parametrize("make", people_files.MAKERS.values(), ids=people_files.MAKERS)
def test_a_file_is_counted_or_says_what_to_do(asked, make, tmp_path):
    stored = make(tmp_path)
    axes: dict[str, Any] = {} if stored.path.suffix == ".engine" else {"batches": (2,), "resolutions": ((32, 32),)}
    counts = counted(asked, str(stored.path), **axes)
    if stored.status != "ok":
        assert counts["status"] != "ok"
        assert re.search(stored.says, counts["reason"])
        return
    assert counts["status"] == "ok", counts["reason"]
    assert (counts["params"], counts["macs"]) == (stored.params, stored.macs)


def test_a_file_that_changes_after_it_was_planned_is_refused(asked, tmp_path):
    stored = people_files.scripted(tmp_path)
    source = asked.describe(str(stored.path))
    stored.path.write_bytes(b"another")
    case = Case(str(stored.path), "eager", "cpu", "float32", "channels_last", "hot", 2, (32, 32), None, None)
    assert "was changed" in costs(asked, case, source)["reason"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("classes=4", None),
        ("classes=four", "TypeError"),
        ("classes=", "TypeError"),
    ],
)
def test_options_arrive_in_the_types_of_the_parameters(asked, option, says):
    counts = counted(asked, f"people_forms:Small:{option}", batches=(2,), resolutions=((32, 32),))
    assert counts["status"] == "ok" if says is None else "expected int" in counts["reason"]


def test_a_batch_that_inputs_fix_cannot_be_another(asked):
    options = ("--input", "x:2x1x28x28")
    assert counted(asked, "people_inputs:grey", options)["status"] == "ok"
    other = counted(asked, "people_inputs:grey", options, batches=(3,))
    assert "got batch 3, which the inputs x:2x1x28x28:float32 fix at 2" in other["reason"]
    registered = counted(asked, "conv", options)
    assert "others take --batches" in registered["reason"]


def test_inputs_of_an_archive(asked, tmp_path):
    import numpy as np

    np.savez(tmp_path / "in.npz", pixel_values=np.zeros((2, 3, 32, 32), "float32"), input_ids=np.zeros((2, 20), int))
    asked.given = Given(inputs=str(tmp_path / "in.npz"))
    entry = expand([Axes(models=("people_inputs:two_towers",), devices=("cpu",))], asked.describe, ["cpu"])[0]
    assert (entry.case.batch, entry.case.resolution) == (2, (32, 32))
    assert costs(asked, entry.case, entry.source)["macs"] == next(
        kind.macs for kind in KINDS if kind.model.endswith(":with_inputs")
    )
    (tmp_path / "in.npz").write_bytes(b"another")
    assert costs(asked, replace(entry.case, batch=2), entry.source)["status"] != "ok"


def test_a_tree_sums_up_what_lies_within(asked):
    kind = next(kind for kind in KINDS if kind.model.endswith(":with_inputs"))
    asked.given = Given()
    axes = Axes(models=(kind.model,), devices=("cpu",), batches=(2,), resolutions=((32, 32),))
    entry = expand([axes], asked.describe, ["cpu"])[0]
    rows = {row["path"]: row for row in costs(asked, entry.case, entry.source, tree=True)["tree"]}
    assert (rows[""]["params"], rows[""]["macs"]) == (kind.params, kind.macs)
    assert (rows["image"]["params"], rows["image"]["macs"]) == (24_608, 2 * 4 * 32 * 768)
    assert rows["image"]["activation_bytes"] == 2 * 32 * 2 * 2 * 4
    assert rows["text.table"]["activation_bytes"] == 2 * 20 * 32 * 4
    within = [row for path, row in rows.items() if path.startswith("text.layer")]
    assert rows["text.layer"]["macs"] == rows["text"]["macs"] == 2 * layer(20, 32, 64)
    assert all(row["macs"] <= rows["text.layer"]["macs"] for row in within)
    assert {row["role"] for row in rows.values()} == {"unknown"}


@pytest.mark.parametrize("name", ["item", "plain", "tied"])
def test_a_tree_is_known_wherever_it_was_counted(asked, name):
    kind = next(kind for kind in KINDS if kind.model.endswith(f":{name}"))
    asked.given = Given()
    axes = Axes(models=(kind.model,), devices=("cpu",), batches=(2,), resolutions=((32, 32),))
    entry = expand([axes], asked.describe, ["cpu"])[0]
    rows = costs(asked, entry.case, entry.source, tree=True)["tree"]
    assert (rows[0]["path"], rows[0]["params"], rows[0]["macs"]) == ("", kind.params, kind.macs)


def test_roles_of_a_tree_are_those_that_our_models_declare(asked):
    asked.given = Given()
    entry = expand([Axes(models=("dwnet_t",), devices=("cpu",))], asked.describe, ["cpu"])[0]
    counts = costs(asked, entry.case, entry.source, tree=True)
    assert {"mixer", "mlp", "norm", "embed", "head"} <= {row["role"] for row in counts["tree"]}
    assert counts["tree"][0]["macs"] == counts["macs"]


def test_an_operator_of_ones_own_is_named_until_its_formula_is_registered(asked):
    unknown = counted(asked, "people_operators:unregistered", batches=(2,), resolutions=((32, 32),))
    assert (unknown["macs"], unknown["uncounted_ops"]) == (0, ("people.product",))
    known = counted(asked, "people_own_operator:registered", batches=(2,), resolutions=((32, 32),))
    assert (known["macs"], known["uncounted_ops"]) == (2 * 3 * 5, ())
    refused = counted(asked, "people_own_operator:known")
    assert "got operator 'aten::mm', which is counted already" in refused["reason"]


@pytest.mark.parametrize("name", ["my", "my::", "aten::relu", "aten::linear", "aten::layer_norm"])
def test_a_formula_for_no_operator_or_a_known_one_is_refused(name):
    with pytest.raises(UsageError, match="expected"):
        mixprof.register_flops(name, lambda *shapes, out_shape: 0)


def test_metadata_before_an_engine_is_no_part_of_it():
    plan, metadata = b"ftrt" + bytes(100), b'{"task": "detect", "batch": 1}'
    assert graphs.without_metadata(len(metadata).to_bytes(4, "little") + metadata + plan) == plan
    for other in (plan, b"", b"\x02\0\0\0{]" + plan, len(metadata).to_bytes(4, "little") + metadata):
        assert graphs.without_metadata(other) == other
