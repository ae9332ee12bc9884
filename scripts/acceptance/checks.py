"""All checks, the most telling first: a machine that is lent for ten minutes may be taken back before the last."""

from __future__ import annotations

from acceptance.frame import Check

FIND = Check("device", "there is a device", "acceptance.provenance:device", 60)


def _check(name: str, decides: str, probe: str, limit_s: float, usual_s: float = 5, **more: object) -> Check:
    needs = str(more.pop("needs", "device"))
    return Check(name, decides, f"acceptance.{probe}", limit_s, usual_s, needs, more)


CHECKS = (
    _check("provenance.source", "which code ran with which packages", "provenance:source", 60, needs="nothing"),
    _check("provenance.doctor", "`mixprof doctor` ends well and knows the device", "provenance:doctor", 110, 15),
    _check("fork.server", "a server with torch loaded has nothing of CUDA mapped", "isolation:server", 20),
    _check("fork.child", "a forked process uses CUDA and its server stays clean", "isolation:child", 60, needs="gpu"),
    _check("provenance.nvml", "what NVML answers to each question", "provenance:nvml", 30, needs="gpu"),
    _check("fork.product", "of `mixprof time`, launches alone touch CUDA", "isolation:product", 90, 15),
    _check("fork.poisoned", "CUDA begun before a fork is lost to the child", "isolation:poisoned", 60, 10, needs="gpu"),
    _check("marked.tests", "each test marked `gpu` passes", "marked:outcomes_of_tests", 245, 120, needs="gpu"),
    _check("marked.sweep", "every lowering and dtype runs, or says why not", "marked:sweep", 245, 120),
)
