"""The gate on a toy repository: the same code against itself, and slow-downs of known size that it must see."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acceptance.commands import command, mixprof, of
from acceptance.frame import Seen, Value, patience

NET = '''
from torch import nn


class Chain(nn.Module):
    """A product, then one small kernel after another: a forward is as long as they are many."""

    def __init__(self, channels, kernels, products=1):
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.kernels, self.products = kernels, products

    def forward(self, x):
        for _ in range(self.products):
            y = self.linear(x)
        for _ in range(self.kernels):
            y = y.sin()
        return y


def steady(channels):
    return Chain(channels, {base})


def heavy(channels):
    return Chain(channels, 1, 40)


def plus2(channels):
    return Chain(channels, {plus2})


def plus5(channels):
    return Chain(channels, {plus5})


def plus10(channels):
    return Chain(channels, {plus10})
'''
KERNELS = 100  # of the chain: one more is a percent
INJECTED = {"plus2": 2, "plus5": 5, "plus10": 10}
SURE = ("plus5", "plus10")  # 2 % is the threshold itself: either verdict is right
FLAGGED = ("regressed", "improved")
LIMIT_S = 170
SLOW = "overhead_us=50"  # of sim:0: fewer kernels a second are simulated sooner


def same(device: str) -> Seen:
    """A/A: bound by the host, bound by the device, under a power cap. No case is flagged."""
    small = ("--channels", "32", "--resolutions", "14", "--batches", "1")
    large = ("--channels", "1024", "--resolutions", "56", "--batches", "32")  # a GPU's power limit is reached
    jobs: dict[str, tuple[tuple[str, ...], str]] = {"host": (("net:steady", *small), "overhead_us=20,launch_us=60")}
    if device.startswith("sim"):
        jobs["capped"] = (("net:steady", *small), f"{SLOW},power_cap=0.8")
    else:
        jobs["device and power"] = (("net:heavy", *large), "")
    values: dict[str, Value] = {}
    wrong, raw = [], {}
    for name, ((models, *axes), simulation) in jobs.items():
        judged, code = _ab(device, "same", models, *axes, simulation=simulation)
        values |= {f"{name}: {what}": value for what, value in _values(judged, code).items()}
        wrong += [f"{name}: {_name(each)} is {each['verdict']}" for each in judged if each["verdict"] in FLAGGED]
        wrong += [f"{name}: ab ended with {code}"] * (code not in (0, 3))
        raw[name] = judged
    return Seen(values, wrong=tuple(wrong), raw=raw)


def injected(device: str) -> Seen:
    """Slow-downs of 2, 5 and 10 %: the larger two are regressions, and the case beside them is none."""
    names = ("steady", "plus5") if device.startswith("sim") else ("steady", *INJECTED)
    models = ",".join(f"net:{name}" for name in names)
    axes = ("--channels", "32", "--resolutions", "14", "--batches", "1")
    judged, code = _ab(device, "slower", models, *axes, simulation=SLOW)
    verdicts = {each["case"]["model"].removeprefix("net:"): each for each in judged if not each.get("time")}
    wrong = [f"{name} is {verdicts[name]['verdict']}" for name in SURE if name in names and not _is(verdicts, name)]
    wrong += ["what did not change is regressed"] * _is(verdicts, "steady")
    wrong += [f"ab ended with {code}, expected 1"] * (code != 1)
    return Seen(_values(judged, code), wrong=tuple(wrong), raw={"cases": judged})


def _is(verdicts: Mapping[str, Any], name: str) -> bool:
    return bool(verdicts.get(name, {}).get("verdict") == "regressed")


def _name(judged: Mapping[str, Any]) -> str:
    return f"{judged['case']['model'].removeprefix('net:')}{' host' if judged.get('time') else ''}"


def _values(judged: list[dict[str, Any]], code: int) -> dict[str, Value]:
    values: dict[str, Value] = {"exit": code}
    for each in judged:
        values |= {f"verdict {_name(each)}": each["verdict"], f"change {_name(each)}": each["change"]}
        values[f"half_width {_name(each)}"] = None if each["low"] is None else (each["high"] - each["low"]) / 2
    return values


def _ab(device: str, head: str, models: str, *axes: str, simulation: str = "") -> tuple[list[dict[str, Any]], int]:
    """The judged cases of `mixprof ab base HEAD`, and its exit code."""
    limit_s = LIMIT_S * patience(device)
    with tempfile.TemporaryDirectory(prefix="acceptance-repository-") as folder:
        variables = {**_identity(), "MIXPROF_SIM": simulation}
        _make(Path(folder), variables)
        kind = "float32" if device.startswith("sim") else "float16"
        common = (
            "--models",
            models,
            *of(device),
            "--dtypes",
            kind,
            "--layouts",
            "contiguous",
            "--budget",
            str(limit_s - 20),
            "--json",
        )
        done = mixprof("ab", "base", head, *common, *axes, limit_s=limit_s, where=Path(folder), variables=variables)
    if done.returncode not in (0, 1, 3, 4) or not done.stdout.strip():
        raise RuntimeError(f"ab ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)["cases"], done.returncode


def _identity() -> dict[str, str]:
    """Git as nobody has set it up."""
    people = {f"GIT_{who}_{what}": "toy@toy" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **people}


def _make(folder: Path, variables: Mapping[str, str]) -> None:
    """A repository with the tags base, same (another file) and slower (by what the names say)."""
    counts = {
        "base": dict.fromkeys(INJECTED, KERNELS),
        "slower": {name: KERNELS + more for name, more in INJECTED.items()},
    }

    def git(*arguments: str) -> None:
        done = command(["git", *arguments], 30, where=folder, variables=variables)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, arguments[0], done.stdout, done.stderr)

    git("init", "--quiet", "--initial-branch", "main")
    for tag, file, text in (
        ("base", "net.py", _net(counts["base"])),
        ("same", "other.py", "x = 1\n"),
        ("slower", "net.py", _net(counts["slower"])),
    ):
        (folder / file).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--message", tag)
        git("tag", tag)


def _net(kernels: Mapping[str, int]) -> str:
    text = NET.replace("{base}", str(KERNELS))
    for name, count in kernels.items():
        text = text.replace("{" + name + "}", str(count))
    return text
