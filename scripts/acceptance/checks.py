"""All checks, the most telling first: a machine that is lent for ten minutes may be taken back before the last."""

from __future__ import annotations

from acceptance.frame import Check

FIND = Check("device", "there is a device", "acceptance.provenance:device", 60)

CHECKS = (
    Check("provenance.source", "which code ran with which packages", "acceptance.provenance:source", 60, needs="nothing"),
    Check("provenance.doctor", "`mixprof doctor` ends well and knows the device", "acceptance.provenance:doctor", 110, 15),
    Check("fork.server", "a server with torch loaded has nothing of CUDA mapped", "acceptance.isolation:server", 20),
    Check("fork.child", "a forked process uses CUDA and its server stays clean", "acceptance.isolation:child", 60,
          needs="gpu"),
    Check("provenance.nvml", "what NVML answers to each question", "acceptance.provenance:nvml", 30, needs="gpu"),
    Check("fork.product", "of `mixprof time`, launches alone touch CUDA", "acceptance.isolation:product", 90, 15),
    Check("fork.poisoned", "CUDA begun before a fork is lost to the child", "acceptance.isolation:poisoned", 60, 10,
          needs="gpu"),
    Check("marked.tests", "each test marked `gpu` passes", "acceptance.marked:tests", 245, 120, needs="gpu"),
    Check("marked.sweep", "every lowering and dtype runs, or says why not", "acceptance.marked:sweep", 245, 120),
)  # fmt: skip
