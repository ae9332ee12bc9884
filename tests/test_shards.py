"""A sweep in shards: every case in one of them, about as long each, the same on every machine."""

import random
from dataclasses import replace

import pytest

from mixprof.data.errors import UsageError
from mixprof.plan.shards import Shard, missing, split
from synthetic_runs import case

CASES = [case(batch=batch, window=window) for batch in range(1, 41) for window in (3, 5, 7)]
SECONDS = {of: 1.0 + of.batch * (of.window or 0) for of in CASES}


def test_every_case_is_in_one_shard_whatever_their_order():
    shards = split(SECONDS, 7)
    assert sorted(of.key for shard in shards for of in shard) == sorted(of.key for of in CASES)
    shuffled = random.Random(1).sample(CASES, len(CASES))
    assert split({of: SECONDS[of] for of in shuffled}, 7) == shards


@pytest.mark.parametrize("of", [1, 3, 16])
def test_shards_are_as_long_as_the_bound_of_the_longest_first_rule_says(of):
    loads = [sum(SECONDS[one] for one in shard) for shard in split(SECONDS, of)]
    least = max(sum(loads) / of, max(SECONDS.values()))  # no split has a shorter longest shard
    assert max(loads) <= (4 / 3 - 1 / (3 * of)) * least  # Graham 1969


def test_more_shards_than_cases_leave_some_empty():
    shards = split({replace(CASES[0], batch=1): 2.0, CASES[5]: 1.0}, 4)
    assert [len(shard) for shard in shards] == [1, 1, 0, 0]


def test_a_shard_is_read_and_written_alike():
    assert str(Shard.parse(" 3/16 ")) == "3/16"


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "-1/4", "1/0", "a/b", ""])
def test_a_bad_shard_is_one_line(text):
    with pytest.raises(UsageError, match=r"^--shard: got '.*', expected a shard like 3/16") as error:
        Shard.parse(text)
    assert "\n" not in str(error.value)


def test_missing_shards_are_named_and_one_complete_number_suffices():
    assert missing([]) == []
    assert missing(["3/3", "1/3"]) == ["2/3"]
    assert missing(["2/2", "1/2", "1/3"]) == []
    assert missing(["1/2", "1/3", "3/3"]) == ["2/2", "2/3"]
