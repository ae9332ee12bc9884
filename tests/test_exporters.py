"""Each exporter's output as its consumer reads it: schemas and parsers of others, names that no format likes."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import junitparser
import pytest
from markdown_it import MarkdownIt

from mixprof.reports.gate.exporters import EXPORTERS, as_annotations, write
from mixprof.reports.gate.exporters.bencher import as_bencher
from mixprof.reports.gate.exporters.benchmark_action import as_benchmark_action
from mixprof.reports.gate.exporters.github import MOST
from mixprof.reports.gate.exporters.junit import as_junit
from mixprof.reports.gate.exporters.markdown import MOST_BYTES, as_markdown
from mixprof.reports.gate.outcome import Outcome, Policy
from outcomes import NASTY, TIMES, every_verdict, judged

FAIL, PASS = Policy(), Policy("pass", "pass")
ONE_LINE = " ".join(NASTY.split())
# What XML 1.0 cannot hold is replaced; the rest survives.
IN_XML = NASTY.replace("\x1b", "\ufffd")

# The rules of the schema of Apache Ant's JUnit tasks, https://github.com/windyroad/JUnit-Schema, in our own words:
# children in this order, attributes that are required with what their text must be.
TEXT, NUMBER, WHOLE = r"(?s).+", r"-?\d+(\.\d+)?", r"\d+"
TIMESTAMP = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}"
REQUIRED = {
    "testsuites": {},
    "testsuite": {"package": TEXT, "id": WHOLE, "name": TEXT, "timestamp": TIMESTAMP, "hostname": TEXT, "tests": WHOLE,
                  "failures": WHOLE, "errors": WHOLE, "time": NUMBER},
    "properties": {}, "property": {"name": TEXT, "value": "(?s).*"},
    "testcase": {"name": TEXT, "classname": TEXT, "time": NUMBER},
    "failure": {"type": TEXT}, "error": {"type": TEXT}, "skipped": {}, "system-out": {}, "system-err": {},
}  # fmt: skip
OPTIONAL = {"testsuite": {"skipped"}, "failure": {"message"}, "error": {"message"}, "skipped": {"message"}}
CHILDREN = {
    "testsuites": r"(testsuite )*",
    "testsuite": r"properties (testcase )*system-out system-err ",
    "properties": r"(property )*",
    "testcase": r"((skipped|error|failure) )?",
}


def check_junit(element):
    required = REQUIRED[element.tag]
    assert set(required) <= set(element.attrib) <= set(required) | OPTIONAL.get(element.tag, set()), element.attrib
    for name, form in required.items():
        assert re.fullmatch(form, element.attrib[name]), (element.tag, name, element.attrib[name])
    assert re.fullmatch(CHILDREN.get(element.tag, ""), "".join(f"{child.tag} " for child in element))
    for child in element:
        check_junit(child)


@pytest.mark.parametrize("outcome", [every_verdict(), Outcome("exact", "a", "b", [])], ids=["every verdict", "empty"])
@pytest.mark.parametrize("policy", [FAIL, PASS])
def test_junit_keeps_to_the_strictest_schema(outcome, policy):
    check_junit(ElementTree.fromstring(as_junit(outcome, policy)))


def test_junit_says_what_fails_the_job():
    suites = {suite.name: suite for suite in junitparser.JUnitXml.fromstring(as_junit(every_verdict(), FAIL).encode())}
    cases = suites["mixprof ab cases"]
    kinds = {case.name: type(case.result[0]).__name__ if case.result else None for case in cases}
    assert kinds == {
        "regressed case": "Failure", "lost": "Failure", "open": "Error", "elsewhere": "Error", "accepted": "Skipped",
        "faster": None, IN_XML: "Failure",
    }  # fmt: skip
    assert (cases.tests, cases.failures, cases.errors, cases.skipped, cases.time) == (7, 3, 2, 1, 12.5)
    assert [type(case.result[0]).__name__ for case in suites["mixprof ab families"]] == ["Skipped"]
    properties = {each.name: each.value for each in cases.properties()}
    assert properties["regressed case change"] == "0.05"
    assert (properties["regressed case low"], properties["regressed case high"]) == ("0.04", "0.060000000000000005")
    assert properties["base"] == f"main {IN_XML}"
    result = next(case.result[0] for case in cases if case.name == "lost")
    assert (result.message, result.type, result.text) == ("missing", "missing", "head: crashed: signal 11")


def test_junit_skips_what_the_policy_lets_pass():
    cases = next(iter(junitparser.JUnitXml.fromstring(as_junit(every_verdict(), PASS).encode())))
    skipped = {case.name for case in cases if case.result and isinstance(case.result[0], junitparser.Skipped)}
    assert skipped == {"open", "elsewhere", "accepted"}


def test_junit_of_a_flagged_canary_is_an_error():
    outcome = replace(every_verdict(), canary=judged("canary", "improved"))
    *_, canary = junitparser.JUnitXml.fromstring(as_junit(outcome, PASS).encode())
    assert (canary.errors, canary.failures) == (1, 0)


def text_of(token):
    """What a reader sees of an inline token."""
    return "".join(child.content for child in token.children or [] if child.type == "text")


def test_markdown_is_one_table_whose_cells_hold_their_texts():
    tokens = MarkdownIt("commonmark").enable("table").parse(as_markdown(every_verdict(), FAIL))
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_block", "heading_open", "bullet_list_open", "ordered_list_open", "code_block", "fence"}
    inline = [token for token in tokens if token.type == "inline"]
    marks = {child.type for token in inline for child in token.children or []}
    assert marks == {"text", "strong_open", "strong_close"}
    rows = [token for token in tokens if token.type == "tr_open"]
    assert len(rows) == 1 + 7 + 3
    columns = 6
    assert sum(token.type in ("td_open", "th_open") for token in tokens) == columns * len(rows)
    texts = [text_of(token) for token in inline]
    assert ONE_LINE in texts
    assert f"Note: {ONE_LINE}" in texts
    assert "Note: # not a heading" in texts
    assert f"topic|x against main {ONE_LINE}: 3 regressed" in texts[0]


def test_markdown_stays_under_the_limit_of_a_summary_and_keeps_what_failed():
    many = [judged(f"case {number}", reason="long " * 100) for number in range(5000)]
    text = as_markdown(Outcome("ab", "a", "b", [*many, judged("the slow one", "regressed")]), FAIL)
    assert len(text.encode()) < MOST_BYTES
    assert "the slow one" in text
    left_out = re.search(r"(\d+) more rows were left out", text)
    assert left_out is not None
    assert int(left_out[1]) + text.count("| case ") == 1 + 5000  # the heading is "case", too


def unescaped(text, more=()):
    """As the runner reads them: https://github.com/actions/runner, ActionCommand; percent signs last."""
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), *more, ("%25", "%")):
        text = text.replace(escape, character)
    return text


def command(line):
    """Level, title and message of a line, split where the runner splits: at the next `::`, at commas, at `=`."""
    assert line.startswith("::")
    end = line.index("::", 2)
    level, _, properties = line[2:end].partition(" ")
    (title,) = properties.split(",")
    name, _, value = title.partition("=")
    assert name == "title"
    return level, unescaped(value, ((("%3A"), ":"), ("%2C", ","))), unescaped(line[end + 2 :])


def test_annotations_are_read_back_as_they_were_meant():
    commands = [command(line) for line in as_annotations(every_verdict(), FAIL).split("\n")[:-1]]
    titles = {title: level for level, title, _ in commands}
    assert titles == {
        "regressed case: regressed": "error", "lost: missing": "error", f"{NASTY}: regressed": "error",
        "all cases: regressed": "error", "open: inconclusive": "error", "elsewhere: incomparable": "error",
        "accepted: regressed": "notice",
    }  # fmt: skip
    messages = {title: message for _, title, message in commands}
    assert messages[f"{NASTY}: regressed"] == f"+5.0% [+4.0%, +6.0%]; {NASTY}"
    assert messages["open: inconclusive"].endswith("about 7 more rounds, 42 s, would decide it")


def test_annotations_warn_of_what_passes_and_tell_of_more_than_github_shows():
    lines = as_annotations(every_verdict(), PASS).splitlines()
    assert sum(line.startswith("::warning ") for line in lines) == 2
    many = Outcome("ab", "a", "b", [judged(f"case {number}", "regressed") for number in range(30)])
    commands = [command(line) for line in as_annotations(many, FAIL).splitlines()]
    assert len(commands) == MOST
    assert commands[-1][1] == "21 more"


# https://bencher.dev/bmf.json, with the length of a name that the documentation states beside it
BMF = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "propertyNames": {"minLength": 1, "maxLength": 1024},
    "additionalProperties": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"minLength": 1, "maxLength": 64},
        "additionalProperties": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}


def test_bencher_gets_nanoseconds_with_their_intervals():
    found = json.loads(as_bencher(every_verdict(), FAIL))
    jsonschema.validate(found, BMF)
    assert found["regressed case"] == {
        "latency": {"value": 2e6, "lower_value": pytest.approx(1.9e6), "upper_value": pytest.approx(2.1e6)},
        "host-p50": {"value": 2e6, "lower_value": pytest.approx(1.8e6), "upper_value": 2.25e6},
        "host-p95": {"value": 3e6},
        "relative-change": {"value": 0.05, "lower_value": pytest.approx(0.04), "upper_value": pytest.approx(0.06)},
        "macs": {"value": 200},
    }
    assert set(found) == {"regressed case", "open", "accepted", "faster", NASTY}


def test_bencher_takes_long_names_and_no_number_that_is_none():
    outcome = Outcome(
        "ab", "a", "b", [judged("x" * 2000, times=TIMES), judged("y", change=float("inf"), low=0, high=1)]
    )
    found = json.loads(as_bencher(outcome, FAIL))
    jsonschema.validate(found, BMF)
    assert list(found) == ["x" * 1024]


# https://github.com/benchmark-action/github-action-benchmark: README, "customSmallerIsBetter", and BenchmarkResult in
# src/extract.ts; a range is read as "±" and a number (src/extractRangeInfo.ts); an empty list is refused.
BENCHMARKS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "unit": {"type": "string", "minLength": 1},
            "value": {"type": "number"},
            "range": {"type": "string", "pattern": r"^(\+-|±)\s*\d[\d.e+-]+$"},
            "extra": {"type": "string"},
        },
        "required": ["name", "unit", "value"],
        "additionalProperties": False,
    },
}


def test_github_action_benchmark_gets_milliseconds_and_counts():
    found = json.loads(as_benchmark_action(every_verdict(), FAIL))
    jsonschema.validate(found, BENCHMARKS)
    by_name = {each["name"]: each for each in found}
    assert by_name["regressed case"] == {
        "name": "regressed case", "unit": "ms", "value": 2.0, "range": "± 0.1",
        "extra": "regressed +5.0% [+4.0%, +6.0%]",
    }  # fmt: skip
    assert by_name["regressed case host_p95"]["value"] == 3.0
    assert "regressed case host_p99" not in by_name
    assert by_name["regressed case macs"] == {
        "name": "regressed case macs", "unit": "macs", "value": 200, "extra": "regressed +5.0% [+4.0%, +6.0%]",
    }  # fmt: skip


def test_github_action_benchmark_keeps_a_name_as_it_is():
    outcome = Outcome("ab", "a", "b", [judged(NASTY, times=TIMES)])
    assert {each["name"] for each in json.loads(as_benchmark_action(outcome, FAIL))} >= {NASTY, f"{NASTY} host_p50"}


@pytest.mark.parametrize("export", EXPORTERS.values(), ids=list(EXPORTERS))
def test_every_exporter_takes_an_outcome_of_nothing(export):
    assert export(Outcome("exact", "a", "b", []), FAIL).endswith("\n")


def test_a_file_is_replaced_whole_and_a_step_summary_appended_to(tmp_path, monkeypatch):
    summary, plain, link = tmp_path / "summary", tmp_path / "plain", tmp_path / "link"
    summary.write_text("before\n")
    plain.write_text("before\n")
    link.symlink_to(plain)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    write(summary, "after\n")
    write(link, "after é\n")
    assert summary.read_text() == "before\nafter\n"
    assert plain.read_text(encoding="utf-8") == "after é\n"
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"summary", "plain", "link"}


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    for path in (tmp_path / "none" / "file", tmp_path, "/dev/full"):
        with pytest.raises(OSError, match=r"No such file|directory|No space left"):
            write(Path(path), "text")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_text_is_written_as_its_number(tmp_path):
    write(tmp_path / "file", os.fsdecode(b"caf\xe9"))  # an argument that is not UTF-8
    assert (tmp_path / "file").read_text() == "caf\\udce9"
