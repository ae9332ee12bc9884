"""All checks, the most telling first: a machine that is lent for ten minutes may be taken back before the last."""

from __future__ import annotations

from acceptance.frame import Check

MIXERS = ("window_attention", "depthwise_conv", "inhomogeneous_depthwise_conv", "global_attention")
NETWORKS = ("swin_t", "dwnet_t")
FIND = Check("device", "there is a device", "acceptance.provenance:device", 60)


def _check(name: str, decides: str, probe: str, limit_s: float, usual_s: float = 5, **more: object) -> Check:
    needs = str(more.pop("needs", "device"))
    return Check(name, decides, f"acceptance.{probe}", limit_s, usual_s, needs, more)


def _products(block: str, models: tuple[str, ...], decides: str, usual_s: float, **more: object) -> list[Check]:
    """The checks that time each of these models by the command line."""
    probe = "product:mixer" if models is MIXERS else "product:network"
    return [_check(f"{block}.{model}", decides, probe, 180, usual_s, model=model, **more) for model in models]


CHECKS = (
    _check("provenance.source", "which code ran with which packages", "provenance:source", 60, needs="nothing"),
    _check("provenance.doctor", "`mixprof doctor` ends well and knows the device", "provenance:doctor", 110, 15),
    _check("fork.server", "a server with torch loaded has nothing of CUDA mapped", "isolation:server", 20),
    _check("fork.child", "a forked process uses CUDA and its server stays clean", "isolation:child", 60, needs="gpu"),
    _check("provenance.nvml", "what NVML answers to each question", "provenance:nvml", 30, needs="gpu"),
    _check("fork.product", "of `mixprof time`, launches alone touch CUDA", "isolation:product", 90, 15),
    _check("timing.gated", "gated times are the device's", "timing:gated", 120, 30),
    _check("timing.queue", "how deep the queue is; launches are counted", "timing:queue", 60, 10),
    _check("timing.graph", "times of graphs are the device's", "timing:graph", 120, 30),
    _check("timing.cupti", "CUPTI tells the same", "timing:cupti", 120, 30, needs="gpu"),
    _check("timing.ungated", "what the gate is for", "timing:ungated", 40),
    _check("peaks.copies", "rates of copies; where the L2 cache ends", "peaks:copies", 60, 10),
    _check("peaks.products", "rates of products, by dtype", "peaks:products", 60, 10),
    _check("peaks.flush", "cold is not faster than hot, and is the cache's doing", "peaks:flush", 60, 10),
    *_products("product", MIXERS, "times of a mixer, eager and as a graph", 45, lowerings="eager,eager:graph=on"),
    *_products("product", NETWORKS, "a network beside published throughputs", 40, lowerings="eager"),
    _check("gate.injected", "a slow-down of 5 % is a regression", "gate:injected", 180, 80),
    _check("gate.same", "the same code is not flagged", "gate:same", 350, 100),
    _check("flags.hostile", "float32 is exact whatever a module sets", "flags:hostile", 110, 20),
    _check("flags.memory", "a case that does not fit is `oom`", "flags:memory", 110, 20),
    *_products("compiled", MIXERS, "the same compiled", 60, needs="gpu", lowerings="compile"),
    *_products("compiled", NETWORKS, "the same compiled", 90, needs="gpu", lowerings="compile"),
    _check("flags.layouts", "which layout is faster", "product:layouts", 180, 40, needs="gpu"),
    _check("engines.device", "the engines' device over the real driver", "engines:device", 150, 30, needs="gpu"),
    *(
        _check(f"engines.{flavour}", "whole engines", "engines:whole", 220, 60, needs="gpu", flavour=flavour)
        for flavour in ("tensorrt", "tensorrt_rtx")
    ),
    _check("tools.dram", "counted bytes against the least there must be", "tools:dram", 190, 40, needs="gpu"),
    _check("tools.sanitizer", "no error of memory in what we enqueue", "tools:sanitizer", 160, 60, needs="gpu"),
    _check("tools.energy", "the energy counter is power times time", "product:energy", 180, 40, needs="gpu"),
    _check("timing.do_bench", "where another tool reads the host's time", "timing:do_bench", 90, 20, needs="gpu"),
    _check(
        "peaks.ours", "`mixprof`'s peaks are what a gated copy and product reach", "peaks:ours", 60, 20, needs="gpu"
    ),
    _check("fork.poisoned", "CUDA begun before a fork is lost to the child", "isolation:poisoned", 60, 10, needs="gpu"),
    _check("marked.tests", "each test marked `gpu` passes", "marked:outcomes_of_tests", 1800, 240, needs="gpu"),
    _check("marked.sweep", "every lowering and dtype runs, or says why not", "marked:sweep", 1800, 300, needs="gpu"),
)
