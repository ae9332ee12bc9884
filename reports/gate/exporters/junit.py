"""JUnit XML, within what the schema of Apache Ant's JUnit tasks allows: the strictest of those in use.

It has properties of suites only, not of cases, so a case's change and interval are properties of its suite.
"""

import datetime
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from mixprof.reports.gate.outcome import Judged, Outcome, Policy
from mixprof.reports.gate.tables import change_of, interval_of, what_else

NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(outcome: Outcome, policy: Policy) -> str:
    """Suites of cases, families, grid and canary; a test case for each verdict."""
    root = ElementTree.Element("testsuites")
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    suites = {
        "cases": outcome.cases,
        "families": outcome.families,
        "grid": [outcome.grid] if outcome.grid else [],
        "canary": [outcome.canary] if outcome.canary else [],
    }
    for name, members in suites.items():
        if members:
            _suite(root, outcome, name, members, policy)
    for number, suite in enumerate(root):
        spent_s = outcome.spent_s if suite.get("name", "").endswith(" cases") else 0.0
        suite.attrib |= {"id": str(number), "timestamp": now, "time": f"{spent_s:.3f}"}
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, outcome: Outcome, name: str, members: Sequence[Judged], policy: Policy) -> None:
    """Add a suite. The order of its children is the schema's."""
    suite = ElementTree.SubElement(root, "testsuite")
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(outcome, members):
        ElementTree.SubElement(properties, "property", name=_clean(key), value=_clean(value))
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for judged in members:
        case = ElementTree.SubElement(
            suite, "testcase", name=_clean(judged.name), classname=f"mixprof.{outcome.kind}.{name}", time="0"
        )
        kind = _kind(judged, name, outcome, policy)
        if kind:
            counts[kind] += 1
            _add(case, kind, judged)
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(outcome.notes)) if name == "cases" else ""
    ElementTree.SubElement(suite, "system-err")
    suite.attrib |= {
        "name": f"mixprof {outcome.kind} {name}", "package": "mixprof", "hostname": "localhost",
        "tests": str(len(members)), "failures": str(counts["failure"]), "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
    }  # fmt: skip


def _properties(outcome: Outcome, members: Sequence[Judged]) -> list[tuple[str, str]]:
    pairs = [("base", outcome.base), ("head", outcome.head)]
    if outcome.detectable is not None:
        pairs.append(("smallest detectable change", repr(outcome.detectable)))
    for judged in members:
        values = {"change": judged.change, "low": judged.low, "high": judged.high, "rounds": judged.rounds or None}
        pairs += [(f"{judged.name} {name}", repr(value)) for name, value in values.items() if value is not None]
    return pairs


def _kind(judged: Judged, suite: str, outcome: Outcome, policy: Policy) -> str | None:
    """The element that a verdict becomes; None for a test that passed. What fails here fails the job."""
    if suite == "canary":
        return "error" if outcome.flagged else None
    if judged.waived is not None:
        return "skipped"
    if judged.verdict in ("regressed", "missing"):
        return "failure"
    if judged.verdict == "inconclusive":  # of cases alone: a family's does not count
        return "skipped" if suite != "cases" or policy.passes("inconclusive") else "error"
    if judged.verdict == "incomparable":
        return "skipped" if policy.passes("incomparable") else "error"
    return None


def _add(case: ElementTree.Element, kind: str, judged: Judged) -> None:
    parts = [judged.verdict, change_of(judged), interval_of(judged)]
    message = " ".join(part for part in parts if part)
    message += f" (waived: {judged.waived})" if judged.waived else ""
    attributes = {"message": _clean(message)} | ({} if kind == "skipped" else {"type": judged.verdict})
    ElementTree.SubElement(case, kind, attributes).text = _clean(what_else(judged)) or None


def _clean(text: str) -> str:
    """Text without what XML 1.0 cannot hold, such as the colours of a terminal."""
    return NOT_IN_XML.sub("\ufffd", text)
