"""Formulas that come with the package survive an edit that changes no cost, and notice one that does."""

import json

import pytest

from mixprof import models
from mixprof.plan import sources
from mixprof.plan.axes import Source
from mixprof.run.client import source_request
from mixprof.symbolic import shelf
from mixprof.worker import counting
from package_copy import PackageCopy

BLOCK = "            x = F.relu(pointwise(self.conv0, x, self.bn0), inplace=True)\n"


@pytest.fixture
def copy(tmp_path) -> PackageCopy:
    return PackageCopy(tmp_path)


def macs(copy: PackageCopy) -> str:
    done = copy.run("count", "depthwise_conv", "--symbolic", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["macs"]["text"]


def test_a_docstring_a_comment_and_the_order_of_imports_change_nothing(copy):
    path = "models/mixers/depthwise_conv.py"
    copy.replace(path, "The dynamic mixers are this block", "Dynamic mixers are this block")
    copy.replace(path, BLOCK, f"            # A comment.\n{BLOCK}")
    copy.replace(path, "import torch.nn.functional as F\nfrom torch import Tensor, nn\n",
                 "from torch import Tensor, nn\nimport torch.nn.functional as F\n")  # fmt: skip
    assert macs(copy) == "B·N·K²·C + 2·B·N·C²"


def test_an_edit_that_changes_a_cost_is_noticed(copy):
    copy.replace("models/mixers/depthwise_conv.py", BLOCK, f"{BLOCK}        x = pointwise(self.conv0, x, self.bn0)\n")
    assert macs(copy) == "B·N·K²·C + 3·B·N·C²"


def of(name: str) -> Source:
    return sources.describe(name, models, lambda _: sources.Described((), ""))


def test_current_formulas_are_taken_without_asking(monkeypatch, tmp_path):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path))
    monkeypatch.setattr(shelf, "evidence", lambda: shelf.shipped()["evidence"])
    formulas, reason = shelf.find(of("conv"), lambda old: pytest.fail("asked"))
    assert reason is None
    assert formulas is not None
    assert formulas.macs.text() == "B·N·K²·C²"


@pytest.mark.parametrize(("stored", "kept"), [("conv", True), ("pointwise_conv", False)])
def test_formulas_of_other_sources_are_compared_with_counts(monkeypatch, tmp_path, stored, kept):
    """A worker returns those that hold as they are, `proven` and all, and derives anew where they do not."""
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path))
    monkeypatch.setattr(shelf, "evidence", lambda: "other sources")
    old = {**shelf.shipped()["formulas"][stored], "proven": 77}
    answer = counting.derive({"source": source_request(of("conv")), "formulas": old})
    assert (answer["formulas"]["proven"] == 77) is kept
    assert shelf.from_json(answer["formulas"]).macs.text() == "B·N·K²·C²"
    asked = []

    def ask(old):
        asked.append(old)
        return answer

    for _ in range(2):
        shelf.find(of("conv"), ask)
    assert len(asked) == 1  # then it is in the cache, under the sources as they are


def test_every_registered_model_has_formulas():
    assert list(shelf.shipped()["formulas"]) == list(models.MODELS)
