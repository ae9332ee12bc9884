"""What a training step asks of a lowering: its options and dtypes, and why a case cannot be. No torch in it."""

from mixprof.data.case import STEP
from mixprof.data.parsing import Values

# Options of a lowering that trains; they are part of the case, as the rest of its name is.
OPTIONS: dict[str, Values] = {
    "optimizer": ("adamw", "sgd"),
    "update": ("foreach", "fused", "for"),
    "checkpoint": ("stages",),
    "batchnorm": ("train", "eval"),
}
COMPILED: dict[str, Values] = {**OPTIONS, "update": ("foreach", "fused", "for", "compiled")}
MIXED = ("amp_float16", "amp_bfloat16")  # float32 weights, narrower products
DTYPES = ("float32", "tf32", "bfloat16", *MIXED)


def why_not(step: str, dtype: str, lowering: str, options: dict[str, str], *, trains: bool) -> str | None:
    """Why a lowering cannot do a step in a dtype, in one line; None if it can."""
    if step == STEP:
        if dtype in MIXED:
            return f"dtype '{dtype}' is of training: use --steps train, or --dtypes {dtype.removeprefix('amp_')}"
        asked = [name for name in options if name in OPTIONS]
        return f"lowering '{lowering}': '{asked[0]}' is an option of training: use --steps train" if asked else None
    if not trains:
        return f"lowering '{lowering}': holds a forward alone and takes no gradient: use eager or compile"
    if "graph" in options or "sdpa" in options:
        return f"lowering '{lowering}': 'graph' and 'sdpa' are options of inference: leave them out with --steps {step}"
    if dtype not in DTYPES:
        return f"dtype '{dtype}': gradients are lost in it, expected one of {', '.join(DTYPES)} with --steps {step}"
    return None
