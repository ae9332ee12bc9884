"""The exponents and crossovers of runs, as Markdown: `python scripts/proofs/complexity.py RUN…`."""

import sys

from mixprof import reports
from mixprof.data.errors import UsageError
from mixprof.reports.answers import answers
from mixprof.reports.text.growth import crossings, growth_table
from mixprof.reports.text.markdown import as_markdown


def main(runs: list[str]) -> int:
    try:
        known = answers(reports.load(*runs))
    except UsageError as error:
        print(f"complexity: {error}", file=sys.stderr)
        return 2
    if known.exponents.empty:
        expected = "expected a sweep of several resolutions, batches or windows: scripts/sweeps/complexity.toml is one"
        print(
            f"complexity: got no two places along any axis in {', '.join(runs) or 'no run'}, {expected}",
            file=sys.stderr,
        )
        return 2
    for axis, rows in known.exponents.groupby("axis", sort=False):
        print(f"Along {axis}:\n\n{as_markdown(growth_table(rows))}\n")
    print("\n\n".join(section.markdown() for section in crossings(known)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
