"""Which layout is faster, of the cases that were measured in two."""

import pandas as pd

from mixprof.reports.answers import Answers
from mixprof.reports.answers.slices import all_in_words
from mixprof.reports.text.markdown import ORDER, Section, Table, bounded, of_floor, section
from mixprof.reports.text.verdict import PLACE

WHERE = ["dtype", "lowering", "device", "step", *PLACE]


def layouts(answers: Answers) -> list[Section]:
    """A section with a line for each case in both layouts; none where all were measured in one."""
    rows = [_line(row, answers.several_runs) for _, row in answers.layouts.sort_values(ORDER).iterrows()]
    return section("Which layout is faster", Table(tuple(rows))) if rows else []


def _line(row: pd.Series, with_run: bool) -> dict[str, str]:
    """The faster layout by its estimate, how many times as fast, and whether the interval decides it."""
    gain, low, high = row["gain"], row["gain_low"], row["gain_high"]
    ahead = gain >= 1
    times = bounded(gain, low, high) if ahead else bounded(1 / gain, 1 / high, 1 / low)
    return {
        **({"run": row["run"]} if with_run else {}),
        "model": row["model"],
        "where": all_in_words(row[WHERE].to_dict()),
        "faster": f"{row['layout']} over channels_last" if ahead else f"channels_last over {row['layout']}",
        "times": times,
        "of floor": of_floor(row["attainable_share"]),
        "decided": "no interval" if pd.isna(low) else "not decided" if low <= 1 <= high else "decided",
    }
