"""How long a report of many records takes, part by part, and how long its page takes to open.

    python scripts/proofs/report_speed.py [--records 10000]

One process, on one core where the system can say so. Prints seconds by the clock and of the CPU (others may be busy,
too), the weight of the page, and, where there is a Chromium, the seconds until the page is loaded and until it has
sorted its table.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixprof import reports
from mixprof.data.run_folder import read_manifest
from mixprof.reports.answers import answers
from mixprof.reports.charts.figures import charts, write_figures
from mixprof.reports.export import write_tables
from mixprof.reports.page.html import page
from mixprof.reports.text.summary import summary

TESTS = Path(__file__).parents[2] / "tests"
SPENT: dict[str, tuple[float, float]] = {}  # seconds by the clock and of the CPU


def timed(name: str, work: Callable[[], Any]) -> Any:
    start, used = time.perf_counter(), time.process_time()
    result = work()
    SPENT[name] = time.perf_counter() - start, time.process_time() - used
    return result


def open_page(path: Path, folder: Path) -> None:
    from chromium import MISSING, Chromium, Page, program

    path_of_browser = program()
    if path_of_browser is None:
        print(MISSING)
        return
    browser = Chromium(path_of_browser, folder / "profile")
    try:
        tab = Page(browser)
        print(f"page opened {tab.open(path):8.2f} s")
        tab.wait("document.querySelectorAll('#case-table tbody tr').length > 0")
        start = time.perf_counter()
        tab.click("#case-table th:nth-child(2) button")
        tab.evaluate("new Promise(requestAnimationFrame)")
        print(f"table sorted {time.perf_counter() - start:7.2f} s")
        start = time.perf_counter()
        tab.evaluate("document.querySelector('figure').scrollIntoView({behavior: 'instant'})")
        tab.wait("document.querySelectorAll('figure .main-svg').length > 0")
        print(f"first figure {time.perf_counter() - start:7.2f} s")
    finally:
        browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    from synthetic_runs import many, write_lines

    with tempfile.TemporaryDirectory(prefix="mixprof-report-") as name:
        folder = Path(name)
        run = write_lines(folder / "run", many(options.records))
        all_cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
        if all_cores:
            os.sched_setaffinity(0, {min(all_cores)})
        frame = timed("records to frame", lambda: reports.load(run))
        manifests = {"run": read_manifest(run)}
        known = timed("answers", lambda: answers(frame))
        drawn = timed("charts", lambda: charts(known))
        timed("summary.md", lambda: summary(known, manifests))
        timed("csv and parquet", lambda: write_tables(frame, folder))
        timed("figures", lambda: write_figures(known, drawn, folder / "figures"))
        text = timed("index.html", lambda: page(known, manifests, drawn))
        total, cpu = (sum(times) for times in zip(*SPENT.values(), strict=True))
        for part, (seconds, used) in SPENT.items():
            print(f"{part:20} {seconds:7.2f} s, {used:6.2f} s of CPU {used / cpu:6.1%}")
        print(f"{'all':20} {total:7.2f} s, {cpu:6.2f} s of CPU for {len(frame)} records")
        path = folder / "index.html"
        path.write_text(text, encoding="utf-8")
        print(f"page weighs {path.stat().st_size / 1e6:7.2f} MB")
        if all_cores:
            os.sched_setaffinity(0, all_cores)
        open_page(path, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
