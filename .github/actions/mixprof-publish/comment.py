"""A gate's ab.json -> a comment in Markdown, on standard output. Nothing but the standard library is needed.

The file was written by a job that ran somebody's change, so nothing in it is trusted: its size and every field that is
shown are checked, and every character that is no letter, digit or space is written as a number.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from typing import Any

MARKER = "<!-- mixprof-gate -->"
MOST_BYTES, MOST_TEXT = 10_000_000, 300
MOST_COMMENT = 60_000  # of the 65,536 characters that a comment may have
VERDICTS = ("regressed", "missing", "incomparable", "inconclusive", "improved", "same")  # worst first
CODES = {0: "passed", 1: "regressed", 3: "inconclusive", 4: "not comparable"}


def comment(outcome: dict[str, Any]) -> str:
    """ValueError, KeyError or TypeError for what no gate writes."""
    judged = [*outcome["cases"], *outcome["families"], *([outcome["grid"]] if outcome["grid"] else [])]
    judged.sort(key=lambda each: (each["waived"] is not None, VERDICTS.index(each["verdict"])))
    for rows in (100, 50, 25, 12, 6):
        if len(shown := document(outcome, judged, rows)) <= MOST_COMMENT:
            return shown
    return shown


def document(outcome: dict[str, Any], judged: list[dict[str, Any]], rows: int) -> str:
    """With at most so many rows, and as many notes."""
    lines = [
        MARKER,
        f"**mixprof gate: {CODES[outcome['exit_code']]}**, {code(outcome['head'])} against {code(outcome['base'])}",
        "",
        "| case | verdict | change | 95 % interval | why |",
        "|---|---|---|---|---|",
        *(row(each) for each in judged[:rows]),
    ]
    lines += ["", f"{len(judged) - rows} more are in the artifact."] if len(judged) > rows else []
    lines += ["", *(f"- {code(note)}" for note in outcome["notes"][:rows])]
    return "\n".join(lines) + "\n"


def row(judged: dict[str, Any]) -> str:
    waived = judged["waived"]
    why = f"waived: {text(waived)}" if waived is not None else judged["reason"]
    ends = [share(judged[name]) for name in ("low", "high")]
    cells = [
        code(judged["name"]),
        VERDICTS[VERDICTS.index(judged["verdict"])] + (" (waived)" if waived is not None else ""),
        share(judged["change"]),
        f"{ends[0]} to {ends[1]}" if all(ends) else "",
        "" if why is None else code(why),
    ]
    return f"| {' | '.join(cells)} |"


def share(value: Any) -> str:
    """0.05 -> "+5.0%"; None, nothing."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no change")
    return f"{value:+.1%}" if abs(value) < 100 else "over 100 times"


def code(value: Any) -> str:
    """A text that GitHub shows as it is: without mentions, links, images, tags, colours or a change of direction."""
    shown = "".join(letter if letter.isalnum() or letter == " " else f"&#{ord(letter)};" for letter in text(value))
    return f"<code>{shown or ' '}</code>"


def text(value: Any) -> str:
    """On one line, not too long, without characters that steer instead of showing."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    line = " ".join(value.split())
    line = line if len(line) <= MOST_TEXT else line[:MOST_TEXT] + "…"
    return "".join("\ufffd" if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co") else letter for letter in line)


def main() -> int:
    try:
        with open(sys.argv[1], "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        shown = comment(json.loads(content))
    except (OSError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        cause = ascii(f"{type(error).__name__}: {error}"[:200])
        print(
            f"mixprof: got no verdicts that can be shown ({cause}), expected what `mixprof ab --out` writes",
            file=sys.stderr,
        )
        return 2
    sys.stdout.buffer.write(shown.encode("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
