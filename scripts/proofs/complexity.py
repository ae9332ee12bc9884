"""The exponents and crossovers of runs, as Markdown: `python scripts/proofs/complexity.py RUN…`."""

import sys

from mixprof import reports
from mixprof.data.errors import UsageError
from mixprof.reports.answers.exponents import exponents
from mixprof.reports.text.growth import crossings_section, growth_table


def main(runs: list[str]) -> int:
    try:
        frame = reports.load(*runs)
    except UsageError as error:
        print(f"complexity: {error}", file=sys.stderr)
        return 2
    table = exponents(frame)
    if table.empty:
        advice = "expected a sweep of several resolutions, batches or windows: scripts/sweeps/complexity.toml is one"
        print(
            f"complexity: got no two places along any axis in {', '.join(runs) or 'no run'}, {advice}", file=sys.stderr
        )
        return 2
    for axis, rows in table.groupby("axis", sort=False):
        print(f"Along {axis}:\n\n{growth_table(rows)}\n")
    print("\n\n".join(crossings_section(frame)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
