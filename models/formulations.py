"""Formulations: ways to compute a mixer that are equal in value, by name, and where each can run. No torch in it."""

from collections.abc import Iterable

CPP = "cpp"  # positions are mixed in a C++ kernel of our own
ATTENTION = {"attention": ("explicit", "sdpa", "baddbmm")}
LINEAR_ATTENTION = {"attention": ("linear", "quadratic")}
SAMPLING = {"aggregation": ("grid_sample", "gather", CPP)}
SCAN = {"scan": ("chunked", "doubling", CPP)}
AGGREGATION = {"aggregation": ("matmul", "shift", "shift_flat", "unfold_rows", "unfold_sum")}
KERNELS = {"aggregation": (*AGGREGATION["aggregation"], CPP)}  # where the aggregation has one of its own
WINDOWED = {"attention": (*ATTENTION["attention"], CPP)}
FORMULATION_OPTIONS = frozenset(ATTENTION) | frozenset(AGGREGATION) | frozenset(SCAN)
PUBLISHED = "plain"  # the formulation that is the published definition: nothing folded or computed ahead
TRITON = "triton"  # positions are mixed in a Triton kernel of our own
OWN = (CPP, TRITON)  # which a published module, what is counted, never runs
# Behind a formulation's name: its Linears run as the 1x1 convolutions that they are, or in a C++ kernel of our own.
POINTWISE, CPP_LINEAR = "+1x1", "+cpp"
LINEARS = ("", POINTWISE, CPP_LINEAR)
KERNEL_LOWERINGS = ("eager", "compile")  # those in which an operator of our own can stand
# Formulations that are put together from general operators where nothing fuses them; any other is one kernel.
PLAIN_ATTENTION = {
    "plain": "attention as two products around a softmax",
    "explicit": "attention as two products around a softmax",
    "baddbmm": "attention as two batched products around a softmax",
}
PLAIN_LINEAR_ATTENTION = dict.fromkeys(("plain", "linear", "quadratic"), "linear attention as two products")
PLAIN_SCAN = dict.fromkeys(("plain", "chunked", "doubling"), "a scan as multiplies and adds of slices")
PLAIN_SAMPLING = {
    "plain": "moved samples as a gather and products",
    "gather": "moved samples as a gather and products",
    "grid_sample": "moved samples as grid_sample, multiply, sum",
}
PLAIN_AGGREGATION = {
    "plain": "position-wise kernels as unfold and products",
    "matmul": "position-wise kernels as unfold and products",
    "shift": "position-wise kernels as shifts and multiply-adds",
    "shift_flat": "position-wise kernels as shifts and multiply-adds",
    "unfold_rows": "position-wise kernels as unfold, multiply, sum",
    "unfold_sum": "position-wise kernels as unfold, multiply, sum",
}


def formulations_of(mixings: Iterable[str], *, published: bool) -> tuple[str, ...]:
    """The names of formulations that follow from ways to mix positions; none from none."""
    names = [mixing + linear for mixing in mixings for linear in LINEARS]
    return (*names, PUBLISHED) if names and published else tuple(names)


def can_run(formulation: str, lowering: str, device: str) -> bool:
    """Whether a formulation is one for this lowering and device: C++ is for a CPU, Triton for a CUDA device."""
    parts = formulation.split("+")
    here = (CPP not in parts or device == "cpu") and (TRITON not in parts or device.startswith("cuda"))
    return here and can_hold(lowering, formulation)


def can_hold(lowering: str, formulation: str) -> bool:
    """Whether a formulation has no operator of our own, or the lowering is one of PyTorch."""
    return lowering in KERNEL_LOWERINGS or not {CPP, TRITON} & set(formulation.split("+"))


def why_not(formulation: str, lowering: str, device: str | None, step: str = "inference") -> str | None:
    """Why a formulation that is asked for cannot run there, in one line; None if it can, or for a device of None."""
    own = {CPP, TRITON} & set(formulation.split("+"))
    if not can_hold(lowering, formulation):
        expected = " or ".join(KERNEL_LOWERINGS)
        return f"got formulation {formulation!r} for {lowering!r}, expected {expected}: no graph holds our kernels"
    if device is not None and not can_run(formulation, lowering, device):
        expected = "cpu" if CPP in own else "a CUDA device"
        return f"got formulation {formulation!r} on {device}, expected {expected}: its kernel is for no other"
    if step != "inference" and (own or "+" in formulation):
        return (
            f"got formulation {formulation!r} with --steps {step}, expected one without '+' or kernels of ours: "
            "a step is trained as published, with another way to mix positions at most"
        )
    return None
