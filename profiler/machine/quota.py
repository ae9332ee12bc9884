"""How many CPUs this process's control groups let it use: what a container or a batch job was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self")


def cpus(proc: Path = PROC) -> float | None:
    """CPUs' worth of time, the least of all groups that hold this process; None without a bound. proc: of Linux."""
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    shares = [share for folder in _folders(groups, mounts) if (share := _share(folder)) is not None]
    return min(shares, default=None)


def _folders(groups: list[str], mounts: list[str]) -> Iterator[Path]:
    """The folder of every group that bounds this process's CPU time, with those around it."""
    paths = {controllers: path for line in groups for _, controllers, path in [line.split(":", 2)]}
    for line in mounts:
        before, separator, after = line.partition(" - ")
        if not separator:
            continue
        top, place = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = next((path for names, path in paths.items() if "cpu" in names.split(",")), None)
        else:
            continue
        if path is not None:
            # In a container, the path may be the host's and the mount its own part alone.
            inside = Path(path).relative_to(top) if Path(path).is_relative_to(top) else Path()
            yield Path(place)
            yield from (Path(place, *inside.parts[:depth]) for depth in range(1, len(inside.parts) + 1))


def _share(folder: Path) -> float | None:
    """CPUs of one group: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1; None without a bound."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError):
        return None
