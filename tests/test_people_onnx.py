"""ONNX files that people bring, the whole path in worker processes: counted, compared with a reference, timed."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import onnx_people
from mixprof import models
from mixprof.data.errors import UsageError
from mixprof.plan.axes import Axes, expand
from mixprof.plan.files import Given
from mixprof.plan.given import parse_shapes
from mixprof.plan.settings import Measure
from mixprof.run.launching import Bench, launch_case
from mixprof.run.session import session

QUICK = Measure(quick=True, seconds=0.05, threads=1, max_lost_cpu=1.0)
GIB = 1 << 30


@pytest.fixture(scope="module")
def asked():
    with session(QUICK, models) as asked:
        yield asked


def launched(asked, made):
    """The one case of a file and its launch in this process's workers."""
    asked.given = Given(parse_shapes(made.options[1:]))
    (entry,) = expand([Axes(models=(str(made.path),), devices=("cpu",))], asked.describe, ["cpu"])
    assert entry.reason is None
    return entry.case, launch_case(entry, Bench(asked.server, QUICK))


@pytest.mark.parametrize("maker", onnx_people.MAKERS.values(), ids=onnx_people.MAKERS)
def test_a_file_is_counted_and_what_it_returns_is_right(maker, asked, tmp_path):
    made = maker(tmp_path)
    if made.status == "refused":
        with pytest.raises(UsageError, match=made.says):
            launched(asked, made)
        return
    case, launch = launched(asked, made)
    assert launch.status in ("ok", "unstable"), launch.reason  # it never says anything of the time that others took
    assert launch.relative_error is not None
    assert (launch.counts.params, launch.counts.macs) == (made.params, made.macs)
    assert not launch.counts.uncounted_ops
    assert case.batch == made.batch
    assert made.resolution in (None, case.resolution)


def enough() -> bool:
    """Whether there is memory and room for a model of more than 2 GiB, its copy and what onnxruntime makes of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return memory > 6 * GIB and shutil.disk_usage("/tmp").free > 6 * GIB


@pytest.mark.slow
@pytest.mark.skipif(not enough(), reason="less than 6 GiB of memory or disk are free")
def test_a_file_above_two_gib(asked, tmp_path):
    made = onnx_people.above_two_gib(tmp_path)
    _, launch = launched(asked, made)
    assert launch.status in ("ok", "unstable"), launch.reason
    assert (launch.counts.params, launch.counts.macs) == (made.params, made.macs)
    shutil.rmtree(Path(asked.server.scratch) / "references")


def test_more_pictures_than_one_without_a_batch_is_refused(asked, tmp_path):
    made = onnx_people.no_batch(tmp_path)
    asked.given = Given(parse_shapes(made.options[1:]))
    axes = Axes(models=(str(made.path),), devices=("cpu",), batches=(1, 4))
    entries = expand([axes], asked.describe, ["cpu"])
    assert {entry.case.batch: entry.reason is None for entry in entries} == {1: True, 4: False}
    assert replace(entries[0].case, batch=4) == entries[1].case
