"""Old home of `process`, `streams` and `testbed`: goes when the last importer has moved."""

from mixprof.machine.process import *  # noqa: F403
from mixprof.machine.process import ALLOCATOR as ALLOCATOR
from mixprof.machine.streams import *  # noqa: F403
from mixprof.machine.testbed import *  # noqa: F403
