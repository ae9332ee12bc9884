"""docs/architecture.md names files that exist, and its walks visit each once."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
INTRODUCTION, *WALKS = PAGE.split("\n## ")


def files(text):
    return re.findall(r"`((?:profiler|models|reports|tests)/[\w/.]+\.py)`", text)


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.splitlines()[0])
def test_a_walk_visits_files_that_exist_each_once(walk):
    visited = files(walk)
    assert len(visited) > 10
    assert sorted(set(visited)) == sorted(visited)
    assert [path for path in visited if not (ROOT / path).is_file()] == []


def test_the_links_are_as_it_says():
    assert (ROOT / "src" / "mixprof").resolve() == ROOT / "profiler"
    assert (ROOT / "profiler" / "models").resolve() == ROOT / "models"
    assert (ROOT / "profiler" / "reports").resolve() == ROOT / "reports"
