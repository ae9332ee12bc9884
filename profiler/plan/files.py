"""What is known of a file before anything runs: its inputs, which of their axes are free, and what fills these.

Plain data for the parent process, which never opens the file itself: a worker does (`work.inspect`).

A case has one batch and one resolution. They are those of the first input that looks like pictures, four axes of a
float or of bytes: axis 0, and axes 2 and 3; or 1 and 2 where the channels are plainly last. Three channels by two
free axes are one picture, of batch 1. A file without such an input has the first axis of its first input as
its batch, and [1, second axis] as its resolution: a sequence of positions, one row high.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mixprof.data.case import QUANTIZED, Case
from mixprof.data.errors import UsageError
from mixprof.plan.given import PICTURES, Fed
from mixprof.plan.pictures import Axes, Input, Size, of_pictures

ENGINES = (".plan", ".engine")
SUFFIXES = (".onnx", *ENGINES)
MODULES = (".pt", ".pt2")  # TorchScript, and an exported program: they become modules
ENDINGS = (*SUFFIXES, *MODULES)
UNKNOWN = "unknown"  # the element type of an engine's input, where there is no device to ask


@dataclass(frozen=True)
class Artifact:
    """A file as a model, content hash and all."""

    path: str
    sha256: str  # of the file and of what it keeps beside it
    dtype: str | None  # that most of its weights have; None: an engine, which does not tell
    inputs: tuple[Input, ...]
    lowerings: tuple[str, ...]  # that take such a file, without options
    default_lowering: str
    inputs_file: str | None = None  # an .npz
    inputs_sha256: str | None = None

    @property
    def is_engine(self) -> bool:
        return self.path.endswith(ENGINES)


@dataclass(frozen=True)
class Given:
    """What the command line says of inputs."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of files
    inputs: str | None = None  # an .npz
    fed: tuple[Fed, ...] = ()  # of modules and files

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The sizes of every input that has some, by name."""
        return {**self.shapes, **{tensor.name: tensor.given for tensor in self.fed}}


def is_file(name: str) -> bool:
    return name.endswith(SUFFIXES)


def check_dtypes(artifact: Artifact, fed: Iterable[Fed]) -> None:
    """UsageError for an input of another element type than the graph has."""
    own = {tensor.name: tensor.dtype for tensor in artifact.inputs}
    for tensor in fed:
        if own.get(tensor.name, UNKNOWN) not in (UNKNOWN, tensor.dtype):
            raise UsageError(
                f"--input: got {tensor.dtype} for input '{tensor.name}', which is {own[tensor.name]} in "
                f"{artifact.path}: give {tensor.name}:{_words(tensor.given)}:{own[tensor.name]}"
            )


def with_shapes(artifact: Artifact, shapes: Mapping[str, tuple[int, ...]]) -> Artifact:
    """The file with given shapes; UsageError where the graph fixes another size or rank. Names of others are ignored.

    An input that an .npz already gave a shape keeps it, and must not be given another.
    """
    inputs = []
    for tensor in artifact.inputs:
        shape = shapes.get(tensor.name, tensor.given)
        if shape is not None:
            _check_shape(artifact.path, tensor, shape)
            if tensor.given not in (None, shape):
                raise UsageError(
                    f"{artifact.path}: got {_words(shape)} with --shape for input '{tensor.name}', whose array in "
                    f"{artifact.inputs_file} is {_words(tensor.given or ())}, expected the same: leave out --shape"
                )
        inputs.append(replace(tensor, given=shape))
    shaped = replace(artifact, inputs=tuple(inputs))
    _names(shaped)
    return shaped


def _check_shape(path: str, tensor: Input, shape: tuple[int, ...]) -> None:
    if len(shape) != len(tensor.declared):
        raise UsageError(
            f"{path}: got {_words(shape)} for input '{tensor.name}', expected {len(tensor.declared)} axes as the graph "
            f"has: {_words(tensor.declared)}"
        )
    for axis, (size, declared) in enumerate(zip(shape, tensor.declared, strict=True)):
        if isinstance(declared, int) and declared != size:
            raise UsageError(
                f"{path}: got {size} for axis {axis} of input '{tensor.name}', which the graph fixes at {declared}: "
                "give that, or export the graph with this axis free"
            )


def _words(sizes: Iterable[Size]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes) or "no axes"


def _names(artifact: Artifact) -> dict[str, int]:
    """The size of each named axis, as given; UsageError where one name is given two sizes."""
    names: dict[str, tuple[int, str]] = {}
    for tensor in artifact.inputs:
        for size, declared in zip(tensor.given or (), tensor.declared, strict=False):
            if not isinstance(declared, str):
                continue
            known, where = names.setdefault(declared, (size, tensor.name))
            if known != size:
                raise UsageError(
                    f"{artifact.path}: got {size} for axis '{declared}' of input '{tensor.name}' and {known} in "
                    f"'{where}', expected one size: the graph says that they are the same axis"
                )
    return {name: size for name, (size, _) in names.items()}


def lead(artifact: Artifact) -> tuple[Input, Axes]:
    """The input that batch and resolution are read from, and its axes of these."""
    for tensor in artifact.inputs:
        if (
            tensor.dtype in (*PICTURES, UNKNOWN)
            and (axes := of_pictures(tensor, tensor.given or tensor.declared)) is not None
        ):
            return tensor, axes
    first = artifact.inputs[0]
    rank = len(first.declared)
    return first, Axes(batch=0 if rank else None, width=1 if rank > 1 else None)


def own_sizes(artifact: Artifact) -> tuple[int | None, int | None, int | None]:
    """Batch, height and width by the graph, --shape and --inputs; None for one that they leave free."""
    tensor, axes = lead(artifact)
    names = _names(artifact)
    batch, height, width = (
        1 if axis is None else _size(tensor, axis, names) for axis in (axes.batch, axes.height, axes.width)
    )
    return batch, height, width


def _size(tensor: Input, axis: int, names: Mapping[str, int]) -> int | None:
    size = tensor.given[axis] if tensor.given is not None else tensor.declared[axis]
    return names.get(size) if isinstance(size, str) else size


def shapes_of(artifact: Artifact, batch: int, resolution: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of every input in a case. Free axes of the lead input are the case's, others follow by their names.

    UsageError where an axis stays free.
    """
    first, axes = lead(artifact)
    names = _names(artifact)
    filling = axes.sizes(batch, resolution)
    for axis, size in filling.items():
        declared = first.declared[axis]
        if isinstance(declared, str):
            names.setdefault(declared, size)
    shapes = {}
    for tensor in artifact.inputs:
        sizes = [_size(tensor, axis, names) for axis in range(len(tensor.declared))]
        if tensor is first:
            sizes = [filling.get(axis) if size is None else size for axis, size in enumerate(sizes)]
        if None in sizes:
            raise _free(artifact, tensor, sizes)
        shapes[tensor.name] = tuple(size for size in sizes if size is not None)
    return shapes


def _free(artifact: Artifact, tensor: Input, sizes: Sequence[int | None]) -> UsageError:
    free = [f"{axis} ({tensor.declared[axis] or 'without a name'})" for axis, size in enumerate(sizes) if size is None]
    usual = (1, 3, 224, 224) if len(sizes) == 4 else (1,) * len(sizes)
    like = "x".join(str(size or other) for size, other in zip(sizes, usual, strict=True))
    return UsageError(
        f"{artifact.path}: got no size for axis {', '.join(free)} of input '{tensor.name}', which the graph leaves "
        f"free, expected one for each: --shape {tensor.name}:{like}"
    )


def batches_of(artifact: Artifact, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """The values of the batch axis: those asked for, else the file's own; UsageError where it has none."""
    batch = own_sizes(artifact)[0]
    if asked is None and batch is None:
        raise _unsized(artifact)
    return asked or (batch or 1,)


def resolutions_of(artifact: Artifact, asked: tuple[tuple[int, int], ...] | None) -> tuple[tuple[int, int], ...]:
    """The same for resolutions."""
    _, height, width = own_sizes(artifact)
    if asked is None and None in (height, width):
        raise _unsized(artifact)
    return asked or ((height or 1, width or 1),)


def _unsized(artifact: Artifact) -> UsageError:
    tensor, _ = lead(artifact)
    names = _names(artifact)
    error = _free(artifact, tensor, [_size(tensor, axis, names) for axis in range(len(tensor.declared))])
    return UsageError(f"{error}, or the axes for batch and resolution")


def dtypes_of(artifact: Artifact, asked: tuple[str, ...] | None, usual: str) -> tuple[str, ...]:
    """The graph's own where none is asked for. An engine's is what the user says, once: it has but one."""
    if artifact.dtype is None:
        return (asked or (usual,))[:1]
    return asked or (artifact.dtype,)


def why_impossible(artifact: Artifact, case: Case) -> str | None:
    """Why a case of a file cannot be; None where it can. UsageError where an axis has no size at all."""
    name = case.lowering.split(":")[0]
    if name not in artifact.lowerings:
        kind = "a ready engine" if artifact.is_engine else "an ONNX file"
        return f"lowering '{name}' takes modules, not {kind}: use {' or '.join(artifact.lowerings)}"
    options = case.lowering.split(":")[1:]
    if artifact.is_engine and options not in ([], ["graph=on"]):
        return f"got lowering '{case.lowering}' for a ready engine, which is built: leave out all options but graph=on"
    if "dynamic" in options:
        return (
            f"got lowering '{case.lowering}' for a file, whose engine is built for the case's own shapes: use '{name}'"
        )
    own = artifact.dtype
    from_float32 = own == "float32" and case.dtype in ("tf32", *QUANTIZED)
    wanted_dtype = "float32" if case.dtype in QUANTIZED else case.dtype
    if own is not None and case.dtype != own and not from_float32:
        return f"got dtype {case.dtype} for a graph in {own}: export it in {wanted_dtype}, or leave out --dtypes"
    asked = (case.batch, *case.resolution)
    for word, size, wanted in zip(("batch", "height", "width"), own_sizes(artifact), asked, strict=True):
        if size not in (None, wanted):
            return f"got {word} {wanted}, which the file or --shape fixes at {size}: export it with this axis free"
    shapes_of(artifact, case.batch, case.resolution)
    return None
