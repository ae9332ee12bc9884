"""One forward as a CUDA graph, through NVIDIA's own bindings: pycuda has none. Never run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mixprof.data.errors import Unavailable


class Captured:
    """The work that `enqueue` gives a stream, captured once. Call `destroy` before the context is left.

    handle: the address of a stream of the current context, on which `enqueue` ran before: the first time allocates.
    """

    def __init__(self, handle: int, enqueue: Callable[[], object]):
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise Unavailable(f"a CUDA graph of an engine: pip install 'mixprof[cuda]' ({error})") from error
        self._cuda: Any = driver
        self._stream = driver.CUstream(handle)
        graph = self._record(enqueue)
        try:
            self._executable = self._checked(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def _record(self, enqueue: Callable[[], object]) -> Any:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._checked(self._cuda.cuStreamBeginCapture(self._stream, mode))
        try:
            enqueue()
        except BaseException:
            self._cuda.cuStreamEndCapture(self._stream)  # a stream that is left capturing takes no other work
            raise
        return self._checked(self._cuda.cuStreamEndCapture(self._stream))

    def _checked(self, result: tuple[Any, ...]) -> Any:
        """The value that a call returned beside its status; RuntimeError for a status that is not success."""
        if result[0] != self._cuda.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"CUDA graph: {result[0].name}")
        return result[1] if len(result) > 1 else None

    def launch(self) -> None:
        self._checked(self._cuda.cuGraphLaunch(self._executable, self._stream))

    def destroy(self) -> None:
        """Free the graph, which holds device memory of its own."""
        self._checked(self._cuda.cuGraphExecDestroy(self._executable))
