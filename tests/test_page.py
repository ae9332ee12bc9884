"""index.html in a real browser: drawn, sorted, filtered, silent, and deaf to what names and reasons hold."""

import csv
import io
import json
import os
import time
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from chromium import MISSING, Chromium, Page, program
from mixprof import reports
from mixprof.data.manifest import Peaks
from mixprof.data.record import Record
from mixprof.data.run_folder import write_peaks
from mixprof.reports.answers import answers
from mixprof.reports.charts.figures import charts
from mixprof.reports.export import write_report
from mixprof.reports.page.html import page as page_of
from mixprof.reports.text.markdown import number
from synthetic_runs import MANIFEST, case, many, ok, realistic, training_records, write_lines, write_run

HOSTILE = "<script>alert(1)</script>"
REASON = "</script><img src=x onerror=alert(2)> & {{1}} ${2} \u2028 [link](javascript:alert(3)) **bold**"


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium; without one the tests are skipped, or fail where CI must run them."""
    path = program()
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    started = Chromium(path, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def report(folder, *runs):
    """The page of a report in its folder, and the frame that it is of."""
    write_report(runs, folder)
    return folder / "index.html", reports.load(*runs)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return report(folder / "report", write_run(folder / "run", realistic()))


@pytest.fixture
def opened(browser, full):
    page = Page(browser)
    page.open(full[0])
    yield page
    page.close()


def draw_all(page):
    """Bring every figure into view, as a reader who scrolls does."""
    draw(page, *page.evaluate("report.charts.map(each => each.name)"))


def draw(page, *names):
    for name in names:
        figure = f"document.getElementById({json.dumps(name)})"
        page.evaluate(f"{figure}.scrollIntoView({{behavior: 'instant'}})")
        page.wait(f"{figure}.querySelectorAll('.plot .main-svg').length > 0")


def texts(page, selector):
    return page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.innerText.trim())")


def column_of(page, title):
    """The texts of a column of the table, as shown."""
    titles = texts(page, "#case-table th")
    return texts(page, f"#case-table tbody td:nth-child({titles.index(title) + 1})")


def reasons(page):
    """Why the cases shown have no time."""
    return page.evaluate(
        "[...document.querySelectorAll('#case-table details')].map(each => each.lastChild.textContent)"
    )


def header(page, title):
    return f"#case-table th:nth-child({texts(page, '#case-table th').index(title) + 1}) button"


def shown(page):
    return page.evaluate("document.getElementById('shown').textContent")


def test_the_page_is_silent_and_asks_for_nothing(opened, full):
    draw_all(opened)
    opened.evaluate("dispatchEvent(new Event('beforeprint')), dispatchEvent(new Event('afterprint'))")
    assert opened.errors() == []
    assert [url for url in opened.requests() if not url.startswith(("data:", "blob:"))] == [full[0].as_uri()]
    assert opened.evaluate("fetch('data:,x').then(() => 'open', () => 'refused')") == "refused"


def test_nothing_in_it_is_run_but_the_hashed_scripts(opened):
    handlers = (
        "[...document.querySelectorAll('*')].flatMap(each => each.getAttributeNames()).filter(n => /^on/.test(n))"
    )
    assert opened.evaluate(handlers) == []
    policy = opened.evaluate("document.querySelector('meta[http-equiv]').content")
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    opened.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert opened.evaluate("window.ran") is None


def test_charts_hold_every_measured_point(opened, full):
    draw(opened, "latency_resolution_mixers")
    frame = full[1]
    ok_mixers = frame[(frame["status"] == "ok") & (frame["channels"] == 96) & (frame["batch"] == 1)]
    rows = ok_mixers[ok_mixers["window"].isna() | (ok_mixers["window"] == 7)]
    assert opened.evaluate(
        "document.querySelectorAll('#latency_resolution_mixers .scatterlayer .point').length"
    ) == len(rows)
    label = opened.evaluate("document.querySelector('#latency_resolution_mixers .plot').getAttribute('aria-label')")
    line = rows[(rows["model"] == "depthwise_conv") & (rows["lowering"] == "eager")].sort_values("height")
    first, last = (number(line["latency_ms"].iloc[end]) for end in (0, -1))
    assert f"depthwise_conv: {first} at 14 to {last.replace(',', '')} at 224" in label.replace(",", "")


def test_charts_are_seen(opened, tmp_path):
    draw(opened, "latency_resolution_mixers")
    opened.wait("document.querySelectorAll('#latency_resolution_mixers .point').length > 0")
    with Image.open(opened.screenshot(tmp_path / "shot.png", "#latency_resolution_mixers .panels")) as image:
        colours = {colour for count, colour in image.convert("RGB").getcolors(2**24) if count > 20}
    styles = opened.evaluate(
        "Object.entries(report.styles).filter(([name]) => name.endsWith('conv')).map(each => each[1].color)"
    )
    assert {tuple(bytes.fromhex(style[1:])) for style in styles} <= colours


def test_the_table_is_sorted_by_mouse_and_by_keyboard(opened, full):
    title = "latency (ms)"
    th = f"document.querySelector({json.dumps(header(opened, title))}).closest('th')"
    values = full[1]["latency_ms"].dropna().sort_values()
    opened.click(header(opened, title))
    assert opened.evaluate(f"{th}.getAttribute('aria-sort')") == "ascending"
    assert column_of(opened, title)[0].split("\n")[0] == number(values.iloc[0])
    opened.evaluate(f"document.querySelector({json.dumps(header(opened, title))}).focus()")
    opened.press("Enter")
    assert opened.evaluate(f"{th}.getAttribute('aria-sort')") == "descending"
    assert column_of(opened, title)[0].split("\n")[0] == number(values.iloc[-1])
    opened.press(" ")
    assert opened.evaluate(f"{th}.getAttribute('aria-sort')") == "none"
    assert column_of(opened, "model")[0] == full[1]["model"].iloc[0]
    opened.click(header(opened, "resolution"))
    assert column_of(opened, "resolution")[:2] == ["14", "14"]  # by size, not as text


def test_the_table_is_filtered_by_mouse_and_by_keyboard(opened, full):
    frame = full[1]
    opened.click("#words")
    opened.type("WINDOW_attention compile")
    wanted = ((frame["model"] == "window_attention") & frame["lowering"].str.startswith("compile")).sum()
    assert shown(opened) == f"{wanted} of {len(frame)} cases shown."
    assert set(column_of(opened, "model")) == {"window_attention"}
    opened.evaluate("words.select()")
    opened.type("no such case")
    assert shown(opened) == f"0 of {len(frame)} cases shown."
    opened.evaluate("words.select()")
    opened.type(" ")
    opened.press("Tab")
    assert opened.evaluate("document.activeElement.closest('label').innerText.split(' ')[0]") == "status"
    opened.press("o")  # the first choice that begins with it
    assert set(column_of(opened, "status")) == {"ok"}
    assert shown(opened).startswith(f"{(frame['status'] == 'ok').sum()} of {len(frame)} cases shown")
    assert opened.evaluate("document.getElementById('shown').getAttribute('aria-live')") == "polite"


def test_pages_of_the_table(opened, full):
    count = len(full[1])
    assert count > 200
    assert "rows 1 to 100 are below" in shown(opened)
    opened.click("#pages button:nth-of-type(2)")
    assert "rows 101 to 200 are below" in shown(opened)
    assert len(texts(opened, "#case-table tbody tr")) == 100


def test_a_legend_box_hides_a_line_by_keyboard(opened):
    draw(opened, "latency_resolution_mixers")
    lines = "document.querySelectorAll('#latency_resolution_mixers .scatterlayer .trace').length"
    before = opened.evaluate(lines)
    opened.evaluate("document.querySelector('#latency_resolution_mixers .legend input').focus()")
    opened.press(" ")
    assert opened.evaluate(lines) == before - 3  # one model under three lowerings
    opened.press(" ")
    assert opened.evaluate(lines) == before


def test_another_setting_is_chosen_and_its_data_is_saved(opened, full, tmp_path):
    opened.browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    figure = "document.getElementById('latency_resolution_mixers')"
    opened.evaluate(
        f"(() => {{ const choice = {figure}.querySelector('select');"
        "choice.value = [...choice.options].find(each => each.text.includes('window 3')).value;"
        "choice.dispatchEvent(new Event('change')); })()"
    )
    opened.click("#latency_resolution_mixers .controls button")
    saved = tmp_path / "latency_resolution_mixers.csv"
    deadline = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    rows = list(csv.DictReader(io.StringIO(saved.read_text())))
    frame = full[1]
    wanted = frame[(frame["status"] == "ok") & (frame["channels"] == 96) & (frame["batch"] == 1)]
    wanted = wanted[wanted["window"].isna() | (wanted["window"] == 3)]
    assert sorted(float(row["latency_ms"]) for row in rows) == sorted(wanted["latency_ms"])
    assert {row["panel"] for row in rows} == set(frame["lowering"])


def test_names_and_reasons_are_text(browser, tmp_path):
    attention, convolution = (ok(case(HOSTILE, resolution=(s, s)), [1.0, 1.1]) for s in (14, 28))
    records = [attention, convolution, Record(case(HOSTILE, window=9), "crashed", REASON)]
    path, _ = report(tmp_path / "report", write_run(tmp_path / HOSTILE.replace("/", ""), records))
    page = Page(browser)
    page.open(path)
    draw_all(page)
    assert page.errors() == []
    assert set(column_of(page, "model")) == {HOSTILE}
    assert any("<img src=x onerror=alert(2)>" in reason for reason in reasons(page))
    assert HOSTILE in texts(page, ".legend label")
    assert "[link](javascript:alert(3)) **bold**" in page.evaluate("document.getElementById('not-measured').innerText")
    assert page.evaluate("document.querySelectorAll('body img, a[href^=javascript]').length") == 0
    assert page.evaluate("document.title") == "mixprof: <script>alert(1)<script>"
    hover = "#latency_resolution_mixers .hoverlayer"
    spot = page.evaluate(
        "(p => [p.x + p.width / 2, p.y + p.height / 2])(document.querySelector('.point').getBoundingClientRect())"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=spot[0], y=spot[1])
    page.wait(f"document.querySelector('{hover}')?.textContent.includes('alert(1)')")
    assert page.errors() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser, full, width):
    page = Page(browser, width=width, height=844)
    page.open(full[0])
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('#cases .scroll').scrollWidth") > 390  # the table does, in itself
    assert page.errors() == []


def test_dark_and_light(browser, full):
    inks = {}
    for dark in (False, True):
        page = Page(browser, dark=dark)
        page.open(full[0])
        draw(page, "latency_resolution_mixers")
        read = "getComputedStyle({}).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 765"
        paper = page.evaluate(read.format("document.body", "backgroundColor"))
        words = page.evaluate(read.format("document.body", "color"))
        chart = page.evaluate(read.format("document.querySelector('#latency_resolution_mixers .xtick text')", "fill"))
        assert (paper < 0.2, words > 0.8, chart > 0.8) == (dark,) * 3
        inks[dark] = chart
    assert inks[True] != inks[False]


def test_all_is_drawn_for_print_in_light_ink(browser, full):
    page = Page(browser, dark=True)
    page.open(full[0])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(
        "[...document.querySelectorAll('figure')].every(each => each.querySelector('.plot .main-svg'))"
    )
    assert (
        page.evaluate("getComputedStyle(document.querySelector('#latency_resolution_mixers .xtick text')).fill")
        == "rgb(27, 30, 36)"
    )


def test_everything_has_a_name(opened):
    draw_all(opened)
    every = "[...document.querySelectorAll('{}')].every(each => {})"
    assert opened.evaluate(every.format("[role=img]", "each.getAttribute('aria-label')"))
    assert opened.evaluate(every.format("input, select", "each.labels.length === 1"))
    assert opened.evaluate(every.format("button:not(.plot button)", "each.innerText.trim()"))
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_links_lead_to_files_that_are_there(opened, full):
    links = opened.evaluate("[...document.querySelectorAll('a[href]')].map(each => each.getAttribute('href'))")
    beside = {link for link in links if not link.startswith("#")}
    assert {"results.csv", "summary.md", "latency_resolution_mixers.svg"} <= beside
    from urllib.parse import unquote

    assert all((full[0].parent / unquote(link)).exists() for link in beside)
    assert all(
        opened.evaluate(f"!!document.getElementById({json.dumps(link[1:])})") for link in links if link[0] == "#"
    )


def test_the_verdict_stands_on_top_with_what_was_not_measured(opened):
    assert texts(opened, "#verdict th") == ["who", "how much", "where", "decided", "in all settings"]
    first = texts(opened, "#verdict tbody tr:first-child td")
    assert first[0].endswith("(the two mixers by themselves)")
    assert first[2] == "float32, eager, cpu, 56x56, batch 1, window 7, 96 channels"
    text = opened.evaluate("document.getElementById('not-measured').innerText")
    for missing in ("under tensorrt", "No GPU was measured", "are oom: tried to allocate", "at least"):
        assert missing in text


def test_no_table_is_wider_than_the_page(opened):
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    widths = opened.evaluate("[...document.querySelectorAll('table')].map(each => each.scrollWidth)")
    assert len(widths) > 8
    assert max(widths) <= 1280


def test_roofs_and_ticks_of_the_page_are_written(browser, tmp_path):
    counts = {"macs": 10**7, "flops": 2 * 10**7, "matrix_macs": 10**7, "vector_macs": 0}
    records = [ok(case(resolution=(s, s)), [s, 1.1 * s], min_bytes=10**5 * s, **counts) for s in (2, 14, 900)]
    run = write_run(tmp_path / "run", records)
    rates: dict[str, Any] = {"matrix_flops_per_s": 5e10, "vector_flops_per_s": 2e10, "copy_bytes_per_s": 1e9}
    write_peaks(run, [Peaks("cpu", "float32", **rates)])
    path, _ = report(tmp_path / "report", run)
    page = Page(browser)
    page.open(path)
    draw(page, "roofline", "latency_resolution_mixers")
    read = "[...document.querySelectorAll('{}')].map(each => each.textContent)"
    names = page.evaluate(read.format("#roofline .annotation-text"))
    assert names == ["copy 1 GB/s", "matrix 50", "vector 20"]
    labels = page.evaluate(read.format("#latency_resolution_mixers .ytick text"))
    assert {"5", "10", "20", "50", "100", "200", "500"} <= set(labels)


def test_runs_are_compared_and_their_differences_marked(browser, tmp_path):
    records = [ok(case(resolution=(s, s)), [s, 1.02 * s]) for s in (14, 28)]
    slower = [ok(case(resolution=(s, s)), [2 * s, 2.04 * s]) for s in (14, 28)]
    other = replace(MANIFEST, versions={"torch": "2.6.0"})
    runs = [write_run(tmp_path / "old", slower), write_run(tmp_path / "new", records, other)]
    path, _ = report(tmp_path / "report", *runs)
    page = Page(browser)
    page.open(path)
    assert "differ in versions.torch" in page.evaluate("document.getElementById('not-measured').innerText")
    assert "versions.torch (differs)" in [row.split("\t")[0] for row in texts(page, "tr.differs")]
    page.evaluate("words.value = 'new', words.dispatchEvent(new Event('input'))")
    assert [text.split("\n")[0] for text in column_of(page, "over first run")] == ["2", "2"]
    assert "run_gain_resolution_mixers" in page.evaluate("report.charts.map(each => each.name)")


def test_a_run_of_failures_only_says_so(browser, tmp_path):
    failed = [Record(case(resolution=(s, s)), "oom", "no memory") for s in (14, 28)]
    path, _ = report(tmp_path / "report", write_run(tmp_path / "run", failed))
    page = Page(browser)
    page.open(path)
    assert page.errors() == []
    assert "Nothing was ok, so there is no latency to show." in page.evaluate("document.body.innerText")
    assert reasons(page) == ["no memory"] * 2


def test_a_run_without_records_opens(browser, tmp_path):
    path, _ = report(tmp_path / "report", write_run(tmp_path / "run", []))
    page = Page(browser)
    page.open(path)
    assert page.errors() == []
    assert "nothing was measured" in page.evaluate("document.body.innerText")


@pytest.mark.slow
@pytest.mark.long
def test_ten_thousand_cases_weigh_at_most_20_mb_and_open(browser, tmp_path):
    run = write_lines(tmp_path / "run", many(10_000))
    path, known = tmp_path / "index.html", answers(reports.load(run))
    path.write_text(page_of(known, {"run": MANIFEST}, charts(known)), encoding="utf-8")
    assert path.stat().st_size <= 20e6
    page = Page(browser)
    page.open(path)
    assert shown(page) == "10,000 of 10,000 cases shown; rows 1 to 100 are below."
    page.click(header(page, "latency (ms)"))
    assert page.evaluate("document.querySelectorAll('#case-table tbody tr').length") == 100
    assert page.errors() == []


def test_parts_of_a_training_step_are_stacked_with_whiskers(browser, tmp_path):
    known = answers(reports.load(write_run(tmp_path / "run", training_records())))
    drawn = [chart for chart in charts(known) if chart.name == "step_split_mixers"]
    (tmp_path / "index.html").write_text(page_of(known, {"run": MANIFEST}, drawn))
    page = Page(browser)
    page.open(tmp_path / "index.html")
    draw(page, "step_split_mixers")
    bars, whiskers = (
        page.evaluate(f"document.querySelectorAll('.plot {each}').length") for each in (".bars .point", ".errorbar")
    )
    assert (bars, whiskers) == (3 * 4, 3 * 5)  # mixers times parts, and the whole
    assert page.errors() == []
    page.close()
