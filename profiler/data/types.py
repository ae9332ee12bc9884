"""The nouns of the suite, as plain data: no torch, no statistics."""

from mixprof.data.case import Case
from mixprof.data.json import Json, digest
from mixprof.data.launch import Counts, Energy, Launch, LaunchEnvironment, Memory, Samples
from mixprof.data.record import SCHEMA, Record

__all__ = [
    "SCHEMA", "Case", "Counts", "Energy", "Json", "Launch", "LaunchEnvironment", "Memory", "Record",
    "Samples", "digest",
]  # fmt: skip
