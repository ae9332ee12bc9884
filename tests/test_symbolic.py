"""Formulas against REFERENCE's closed forms, against counts at points they were not derived from, and at the edges."""

from __future__ import annotations

import json
import random
import subprocess
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixprof import models
from mixprof.metrics import flops
from mixprof.symbolic import shelf
from mixprof.symbolic.derive import Formulas, Impossible, NoFormula, Observed, Points, derive, values_at
from mixprof.symbolic.formula import Formula, Point, in_words, size
from mixprof.worker import counting
from test_cli import mixprof
from test_flops import NETWORKS

# REFERENCE.md, "Exact counts"
PARAMETERS = {
    "swin_t": 28_288_354,
    "swin_s": 49_606_258,
    "swin_b": 87_768_224,
    "dwnet_t": 24_172_744,
    "dwnet_b": 74_347_112,
    "dynamic_dwnet_t": 51_131_752,
    "dynamic_dwnet_b": 161_597_928,
    "i_dynamic_dwnet_t": 26_244_280,
    "i_dynamic_dwnet_b": 80_253_608,
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def shipped(name: str) -> Formulas:
    return shelf.from_json(shelf.shipped()["formulas"][name])


def test_sizes():
    point = Point(2, 30, 57, window=5, channels=64)
    assert [size(name, point) for name in ("B", "K", "C", "L")] == [2, 5, 64, 9]
    assert size("N", point) == 30 * 57
    assert size("N4", point) == 8 * 15
    assert size("N4_3", point) == 7 * 14
    assert size("N8_3", point) == ceil(7 / 2) * ceil(14 / 2)
    assert size("N1_6", point) == 24 * 51
    assert size("P", point) == 30 * 60
    assert size("P4", point) == 10 * 15
    assert size("V4", point) == 2 * 3
    assert size("T4", point) == 8 * 15 + 1
    assert in_words("P4") == "K·⌈⌈H/4⌉/K⌉·K·⌈⌈W/4⌉/K⌉"
    assert in_words("N2_1") == "⌊H/2⌋·⌊W/2⌋"


def test_a_formula_is_read_calculated_and_kept():
    found = Formula.of(
        [
            (Fraction(3), (("B", 1), ("P", 1), ("C", 2))),
            (Fraction(1, 32), (("L", 2), ("C", 1))),
            (Fraction(1), (("B", 1), ("P", 1), ("C", 2))),
        ]
    )
    assert found.text() == "4·B·P·C² + 1/32·L²·C"
    assert found.at(Point(2, 5, 4, 3, 64)) == 4 * 2 * 36 * 64**2 + 25 * 2
    assert Formula.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(ArithmeticError, match="expected a whole number"):
        found.at(Point(2, 3, 3, 3, 7))


def reference(name: str, point: Point) -> tuple[int, int]:
    """MACs and parameters of REFERENCE.md, "Cost per mixer"; G = 32 weight groups."""
    assert point.window is not None
    assert point.channels is not None
    c, k, n = point.channels, point.window, point.height * point.width
    padded = k * ceil(point.height / k) * k * ceil(point.width / k)
    generated = {
        "window_attention": (4 * padded * c**2 + 2 * padded * k**2 * c, 4 * c**2 + 4 * c + (2 * k - 1) ** 2 * c // 32),
        "depthwise_conv": (2 * n * c**2 + n * k**2 * c, 2 * c**2 + k**2 * c + c + 6 * c),
        "dynamic_depthwise_conv": (
            2 * n * c**2 + n * k**2 * c + c**2 // 4 + c**2 // 4 * k**2,
            2 * c**2 + 6 * c + c**2 // 4 + c // 2 + c**2 // 4 * k**2 + c * k**2 + c,
        ),
        "inhomogeneous_depthwise_conv": (
            2 * n * c**2 + n * k**2 * c + n * c**2 // 4 + n * c // 4 * k**2 * 32,
            2 * c**2 + 6 * c + c**2 // 4 + c // 4 + c // 2 + c // 4 * k**2 * 32 + k**2 * 32,
        ),
    }
    macs, params = generated[name]
    return point.batch * macs, params


@pytest.mark.parametrize(
    "name", ["window_attention", "depthwise_conv", "dynamic_depthwise_conv", "inhomogeneous_depthwise_conv"]
)
def test_the_reference_of_four_mixers(name: str):
    found, points = shipped(name), Points(random.Random(3), True, True, 1)
    for point in (points.small() for _ in range(500)):
        assert (found.macs.at(point), found.params.at(point)) == reference(name, point), point


@pytest.mark.parametrize("name", NETWORKS)
def test_the_reference_of_networks(name: str):
    found, point = shipped(name), Point(1, 224, 224, 7)
    assert (found.macs.at(point), found.params.at(point)) == (NETWORKS[name], PARAMETERS[name])


def counted(name: str, point: Point, dtype: torch.dtype) -> dict[str, int]:
    is_mixer = models.kind(name) == "mixer"
    sides = (point.height, point.width)
    shape = (point.batch, *sides, point.channels or 0) if is_mixer else (point.batch, 3, *sides)
    with torch.device("meta"), torch.inference_mode():
        module = models.build(name, resolution=sides, window=point.window, channels=point.channels).to(dtype)
        counts = flops.count(module, torch.empty(shape, dtype=dtype))
    params = sum(each.numel() for each in module.parameters())
    return {"macs": counts.macs, "params": params, "min_bytes": counts.min_bytes}


@pytest.mark.parametrize("name", models.MODELS)
def test_formulas_are_what_is_counted(name: str):
    """scripts/proofs/symbolic_proof.py does so at 200 points each."""
    found, accepts, is_mixer = shipped(name), models.accepts(name), models.kind(name) == "mixer"
    points = Points(random.Random(11), "window" in accepts, is_mixer, 1 if is_mixer else models.SMALLEST_IMAGE)
    left = 12 if is_mixer else 4
    while left:
        point = points.small()
        sides = (point.height, point.width)
        if models.check(name, resolution=sides, window=point.window, channels=point.channels) is None:
            dtype = list(DTYPES)[left % 3]
            assert values_at(found, point, dtype) == counted(name, point, DTYPES[dtype]), (point, dtype)
            left -= 1


def observed(make: type[nn.Module] | None, forward: object, point: Point, shape: tuple[int, ...]) -> Observed:
    with torch.device("meta"), torch.inference_mode():
        module = make() if make is not None else None
        counts = flops.count(module if module is not None else forward, torch.empty(shape))  # type: ignore[arg-type]
    params = {} if module is None else {name: each.numel() for name, each in module.named_parameters()}
    operators = tuple((each.name, each.module, each.macs, each.parts) for each in counts.operators)
    return Observed(operators, params, counts.sizes, counts.uncounted_ops)


class Strided(nn.Module):
    """A stem that leaves out what its stride does not reach, a convolution that pads, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(self.down(F.pad(x, (0, -x.shape[3] % 2, 0, -x.shape[2] % 2))).mean((2, 3)))


def test_a_network_of_a_users():
    def observe(point: Point) -> Observed:
        return observed(Strided, None, point, (point.batch, 3, point.height, point.width))

    found = derive(observe, has_window=False, has_channels=False, smallest=32)
    assert found.macs.text() == "384·B·N4_3 + 864·B·N8_3 + 60·B"  # 8 * 3 * 4 * 4, 12 * 8 * 3 * 3, 12 * 5
    assert in_words("N8_3") == "⌈(H - 3)/8⌉·⌈(W - 3)/8⌉"  # ceil(floor(H/4) / 2)


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 6, stride=6), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).mean((2, 3)))


def test_sides_that_are_rounded_down():
    def observe(point: Point) -> Observed:
        return observed(Patches, None, point, (point.batch, 3, point.height, point.width))

    found = derive(observe, has_window=False, has_channels=False, smallest=32)
    assert found.macs.text() == "864·B·N6_5 + 40·B"  # 8 * 3 * 6 * 6, 8 * 5
    assert found.params.at(Point(1, 60, 60)) == 8 * 3 * 36 + 8 + 8 * 5 + 5
    assert found.min_bytes.text() == "12·B·N + 32·B·N6_5 + 52·B + 3668"


REFUSED = {
    "a sum of sides": (lambda x: torch.cat((x[0, 0, :, 0], x[0, 0, 0])) @ x.new_zeros(x.shape[2] + x.shape[3]), "aten"),
    "an operator that nobody knows": (lambda x: torch.fft.fft(x).real @ x.transpose(2, 3), "aten._fft_r2c cannot be"),
    "another operator from some size on": (
        lambda x: x[0, 0] @ x[0, 0].t() if x.shape[2] % 2 else x[0, 0].flatten() @ x[0, 0].flatten(),
        "not the same at every size",
    ),
    "a branch that no fitted point takes": (
        lambda x: x[:, 0] @ x[:, 0].transpose(1, 2) if x.shape[2] >= 300 else x[:, 0] @ x[:, 0, :1].transpose(1, 2),
        "no monomial",
    ),
    "a square root": (lambda x: x[0, 0, : int(x.shape[2] ** 0.5)] @ x[0, 0].t(), "no monomial"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_formula_says_why(name: str):
    forward, said = REFUSED[name]

    def observe(point: Point) -> Observed:
        return observed(None, forward, point, (point.batch, 3, point.height, point.width))

    with pytest.raises(NoFormula, match=said):
        derive(observe, has_window=False, has_channels=False, smallest=32)


def test_a_factory_that_fails_is_named():
    def observe(point: Point) -> Observed:
        raise Impossible("ValueError: sides must be multiples of 32")

    with pytest.raises(NoFormula, match=r"it was to be counted at batch .*, window .*: ValueError: sides must be"):
        derive(observe, has_window=True, has_channels=False, smallest=32)


def test_count_prints_formulas():
    done = mixprof("count", "window_attention", "--symbolic")
    assert done.returncode == 0, done.stderr
    assert "MACs = 2·B·P·K²·C + 4·B·P·C²\n" in done.stdout
    assert "P = K·⌈H/K⌉·K·⌈W/K⌉" in done.stdout
    found = json.loads(mixprof("count", "dwnet_t", "--symbolic", "--json").stdout)
    macs, point = Formula.from_json(found["macs"]["terms"]), Point(1, 224, 224, 7)
    assert macs.at(point) == NETWORKS["dwnet_t"]
    assert found["predicted_peak_bytes"] is None
    assert set(found["sizes"]) >= {"B", "K", "N4", "N8", "N16", "N32"}


def test_a_model_with_options_is_derived_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path))
    for _ in range(2):
        done = mixprof("count", "window_attention:shifted=true", "--symbolic", "--json")
        assert done.returncode == 0, done.stderr
        (kept,) = tmp_path.rglob("*.json")
    (formulas,) = json.loads(kept.read_text())["formulas"].values()
    assert formulas["macs"] == json.loads(done.stdout)["macs"]["terms"]
    kept.write_text("torn")
    assert mixprof("count", "window_attention:shifted=true", "--symbolic", "--json").stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("swin_x",), "swin_t"),
        (("swin_t", "--resolution", "224"), "got --resolution with --symbolic"),
        (("toys:raises",), "RuntimeError: no such"),
        (("toys:refuses",), "expected 7"),
        (("toys:forward_raises",), "beyond the edge"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], said: str):
    done = mixprof("count", *arguments, "--symbolic")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_has_sizes_of_its_own(tmp_path: Path):
    path = tmp_path / "net.onnx"
    torch.onnx.export(nn.Linear(3, 4).eval(), (torch.zeros(2, 3),), path, dynamo=True, verbose=False)
    done = mixprof("count", path, "--symbolic")
    assert done.returncode == 2
    assert "a file has its own" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_large_plan_is_calculated_and_a_small_one_counted():
    def plan(resolutions: str) -> list[dict]:
        axes = ("--models", "window_attention,toys:good", "--resolutions", resolutions, "--channels", "32,64")
        done: subprocess.CompletedProcess[str] = mixprof("plan", *axes, "--json")
        assert done.returncode == 0, done.stderr
        return [row for row in json.loads(done.stdout)["cases"] if row["case"]["model"] != "anchor_v1"]

    small, large = plan("9,20"), plan(",".join(map(str, range(9, 29))))
    assert (len(small), len(large)) == (2 * 2 * 2, 2 * 20 * 2)
    by_case = {json.dumps(row["case"]): row for row in large}
    for row in small:
        other = by_case[json.dumps(row["case"])]
        assert [row[name] for name in ("macs", "params", "min_bytes")] == [
            other[name] for name in ("macs", "params", "min_bytes")
        ]
        assert row["predicted_memory_bytes"] > 0
        assert row["predicted_memory_reason"] is None
        assert other["predicted_memory_bytes"] is None
        assert "at most" in other["predicted_memory_reason"]


def test_a_model_without_a_formula_is_counted_and_said(tmp_path: Path):
    sweep = tmp_path / "sweep.toml"
    sides = ", ".join(map(str, range(9, 90)))
    sweep.write_text(
        f'[[group]]\nmodels = ["depthwise_conv"]\nresolutions = [{sides}]\n'
        '[[group]]\nmodels = ["toys:network"]\nresolutions = [40, 51]\n'
    )
    done = mixprof("plan", sweep, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (note,) = found["notes"]  # its map has sides H - K + 1, which no area here has
    assert note.startswith("toys:network: no formula could be proven: MACs of aten.convolution in '0': no monomial")
    assert note.endswith("its cases were counted one by one")
    counts = [row["macs"] for row in found["cases"] if row["case"]["model"] == "toys:network"]
    assert counts == [4 * 3 * 49 * (side - 6) ** 2 for side in (40, 51)]


def test_a_users_factory_has_a_formula_too():
    request = {
        "source": {"factory": "toys:good", "arguments": {}, "accepts": ["channels"], "kind": "mixer", "user": True}
    }
    found = shelf.from_json(counting.derive(request)["formulas"])
    assert found.macs.text() == "B·N·C²"
