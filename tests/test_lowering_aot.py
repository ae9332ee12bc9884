"""AOTInductor as a lowering: compiled by a child, loaded from its file, right against float64; own packages."""

import json

import pytest
import torch
from torch import nn

from mixprof.data import run_folder
from mixprof.lowerings import aot
from onnx_files import mixprof

pytestmark = pytest.mark.slow
QUICK = ("--quick", "--seconds", "0.1", "--threads", "1", "--max-lost-cpu", "1")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aot")
    axes = ("--models", "depthwise_conv", "--lowerings", "aot", "--resolutions", "14", "--channels", "32")
    done = mixprof("sweep", *axes, "--launches", "2", "--out", "run", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    return next(r for r in run_folder.read_records(folder / "run") if r.case.model == "depthwise_conv")


def test_a_package_is_right_and_its_process_compiled_nothing(record):
    assert record.status == "ok", record.reason
    assert record.relative_error < 1e-5
    assert [launch.proof["compiled_in_this_process"] for launch in record.launches] == [0, 0]
    assert [launch.build_cached for launch in record.launches] == [False, True]


def test_its_products_are_read_from_its_source(record):
    assert sum(record.proof["products"].values()) == 3  # two linear layers and the convolution between them
    assert 0 < record.proof["library_bytes"] < record.artifact_bytes
    assert record.proof["load_s"] > 0
    assert record.proof["first_call_s"] > 0


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "doubled.pt2"
    program = torch.export.export(Doubled(), (torch.randn(2, 3, 8, 8),))
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return path


def test_packages_are_told_from_exported_programs(package, tmp_path):
    torch.export.save(torch.export.export(Doubled(), (torch.randn(2),)), tmp_path / "exported.pt2")
    assert aot.is_package(package)
    assert not aot.is_package(tmp_path / "exported.pt2")


def test_a_package_of_one_s_own_is_timed_and_what_it_cannot_do_is_said(package, tmp_path):
    def records(*more):
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        done = mixprof("sweep", "--models", package, "--out", out, *QUICK, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = map(json.loads, (out / "records.jsonl").read_text().splitlines())
        return {line["case"]["lowering"]: line for line in lines if line["case"]["model"] != "anchor_v1"}

    right = records("--lowerings", "aot,eager", "--input", "x:2x3x8x8")
    assert (right["aot"]["status"], right["aot"]["relative_error"]) == ("ok", None)
    assert right["aot"]["proof"]["reference"].startswith("a compiled package comes without the module")
    assert right["aot"]["artifact_bytes"] == package.stat().st_size
    assert right["eager"]["status"] == "unsupported"
    assert right["eager"]["reason"].endswith("use --lowerings aot")
    wrong = records("--lowerings", "aot", "--input", "x:1x3x8x8")
    assert wrong["aot"]["status"] == "unsupported"
    assert "doubled.pt2 does not run on float32 1x3x8x8" in wrong["aot"]["reason"]
