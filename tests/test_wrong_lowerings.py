"""Every planted wrong variant is `inaccurate` by the product's own tolerance, and every right one is `ok`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from package_copy import PackageCopy
from test_wrong_variants import BY_NAME
from wrong_variants import VARIANTS, Wrong

HERE = Path(__file__).parent
FULL = os.environ.get("MIXPROF_FUZZ") == "200"  # else each variant in the first of its dtypes alone
NEEDED = ("people*.py", "awake.py", "breaking.py", "wrong_variants.py")  # by the workers
LOWERING = '''
import time

from mixprof.lowerings.eager import of_function, place


def lower(module, inputs, target):
    """Run another function than the module's, where the option names one."""
    start = time.perf_counter()
    module, inputs = place(module, inputs, target)
    run = module
    if "variant" in target.options:
        from wrong_variants import VARIANTS

        broken = VARIANTS[int(target.options["variant"])].broken
        if hasattr(module, "call"):  # a forward of more than tensors, bound to the rest
            wrong = broken(module.module)

            def run(*tensors):
                args, kwargs = module.call(*tensors)
                return wrong(*args, **kwargs)
        else:
            run = broken(module)
    return of_function(lambda: run(*inputs), time.perf_counter() - start)
'''
ENTRY = '    "planted": Entry("mixprof.lowerings.planted", ("torch",), "", {"variant": int}, form="eager"),\n'


def dtypes_of(variant: Wrong) -> tuple[str, ...]:
    return variant.dtypes if FULL else variant.dtypes[:1]


def group(name: str) -> str:
    """The sweep of one kind: its right lowering in each dtype and each of its wrong ones, in TOML."""
    kind, lines = BY_NAME[name], []
    numbered = [(number, variant) for number, variant in enumerate(VARIANTS) if variant.model == name]
    for dtype in sorted({dtype for _, variant in numbered for dtype in dtypes_of(variant)}):
        wrong = [f"planted:variant={number}" for number, variant in numbered if dtype in dtypes_of(variant)]
        lines += [
            "[[group]]",
            f'models = ["awake:{name}"]',
            f"lowerings = {json.dumps(['planted', *wrong])}",
            f'dtypes = ["{dtype}"]',
            f"batches = [{kind.batch}]",
            f"resolutions = [{kind.side}]",
            'layouts = ["contiguous"]',
            *(["channels = [8]"] if name == "mixer" else []),
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> dict[tuple[str, str, str], dict]:
    """Records by kind, lowering and dtype."""
    copy = PackageCopy(tmp_path_factory.mktemp("planted"))
    copy.write("lowerings/planted.py", LOWERING)
    start = "LOWERINGS: dict[str, Entry] = {\n"
    copy.replace("lowerings/__init__.py", start, start + ENTRY)
    work = copy.folder / "work"
    work.mkdir()
    for pattern in NEEDED:
        for file in HERE.glob(pattern):
            shutil.copy(file, work)
    measure = "[measure]\nseconds = 0.02\nmax_lost_cpu = 1.0\nthreads = 1\n"
    names = sorted({variant.model for variant in VARIANTS} - {"two_towers"})
    (work / "planted.toml").write_text(measure + "".join(map(group, names)))
    (work / "towers.toml").write_text(measure + group("two_towers"))
    records = {}
    for sweep, options in (("planted", ()), ("towers", BY_NAME["two_towers"].options)):
        done = copy.run("sweep", f"{sweep}.toml", "--quick", "--out", sweep, *options, timeout=1800)
        assert (work / sweep / "records.jsonl").exists(), done.stderr
        for line in (work / sweep / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            case = record["case"]
            records[case["model"].split(":")[-1], case["lowering"], case["dtype"]] = record
    return records


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=lambda number: VARIANTS[number].name)
def test_a_wrong_lowering_is_inaccurate_and_the_right_one_is_not(records, number):
    variant: Wrong = VARIANTS[number]
    for dtype in dtypes_of(variant):
        wrong, right = (records[variant.model, name, dtype] for name in (f"planted:variant={number}", "planted"))
        assert wrong["status"] == "inaccurate", (dtype, wrong["relative_error"], wrong["reason"])
        assert right["status"] == "ok", (dtype, right["relative_error"], right["reason"])
