"""Name what of the packages in pyproject.toml this interpreter lacks, with the command that brings it.

    python scripts/missing.py

For an interpreter that is used as it is: the standard library is enough. What needs an absent package says so then.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def missing() -> list[str]:
    """The distributions among the dependencies that are not installed."""
    text = PROJECT.read_text().split("dependencies = [", 1)[1].split("\n]", 1)[0]
    names = re.findall(r'^    "([A-Za-z0-9-]+)[^";]*"', text, re.MULTILINE)
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    if absent := missing():
        print(f"missing here: {', '.join(absent)}; what needs one of them says so", file=sys.stderr)
        print(f"to install: {sys.executable} -m pip install {' '.join(absent)}", file=sys.stderr)
