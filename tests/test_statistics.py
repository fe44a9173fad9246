"""The statistics of a grid, against scipy, and in a simulation with no difference to be found."""

import math

import numpy as np
import pytest
from scipy import stats

from hierarch.statistics import FEWEST, LEVEL, differences, holm, summary


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_a_summary_is_scipys(count):
    values = np.random.default_rng(count).normal(0.7, 0.02, count)
    told = summary(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert (told.count, told.mean) == (count, pytest.approx(values.mean()))
    assert told.sd == pytest.approx(values.std(ddof=1))
    assert (told.low, told.high) == pytest.approx((low, high))


@pytest.mark.parametrize("count", [3, 5, 40])
def test_a_paired_difference_is_scipys(count):
    random = np.random.default_rng(count)
    seeds = range(count)
    first, other = random.normal(0.7, 0.02, (2, count)) + random.normal(0, 0.1, count)
    arms = {"first": dict(enumerate(first)), "other": dict(enumerate(other))}
    found = differences(arms, "first")["other"]
    expected = stats.ttest_rel(other, first)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(np.mean([other[i] - first[i] for i in seeds]))


def test_the_order_of_seeds_does_not_matter_and_only_common_seeds_count():
    first = {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.9}
    other = {2: 0.73, 0: 0.52, 1: 0.61, 9: 0.1}
    found = differences({"first": first, "other": other}, "first")["other"]
    expected = stats.ttest_rel([0.52, 0.61, 0.73], [0.5, 0.6, 0.7])
    assert (found.count, found.p) == (3, pytest.approx(expected.pvalue))


def test_holms_adjustment_is_that_of_his_procedure():
    # 4 x 0.005; 3 x 0.01; 2 x 0.03; 1 x 0.04, which may not be lower than the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_no_difference_is_claimed_with_too_few_seeds():
    for count in range(1, FEWEST):
        arms = {
            "first": dict.fromkeys(range(count), 0.1),
            "other": dict.fromkeys(range(count), 0.9),
        }
        found = differences(arms, "first", resolution=1e-4)["other"]
        assert (found.word, found.p, found.adjusted) == ("too few seeds", None, None)
    assert differences(apart(FEWEST), "first", resolution=1e-4)["other"].word == "better"


def apart(count):
    """Two arms, far apart with each of so many seeds."""
    return {"first": dict.fromkeys(range(count), 0.1), "other": dict.fromkeys(range(count), 0.9)}


def test_equal_numbers_are_not_taken_to_be_exact():
    one_image = dict.fromkeys(range(3), 0.5 + 1 / 100)
    arms = {"first": dict.fromkeys(range(3), 0.5), "other": one_image}
    assert differences(arms, "first")["other"].word == "better"
    assert differences(arms, "first", resolution=1 / 100)["other"].word == "no difference shown"
    same = {"first": dict.fromkeys(range(3), 0.5), "other": dict.fromkeys(range(3), 0.5)}
    assert differences(same, "first")["other"].p == 1.0


def grids(count, *, arms, seeds, gain=0.0):
    """Results of grids whose seeds are of different luck, which all arms share."""
    random = np.random.default_rng(0)
    for _ in range(count):
        luck = random.normal(0, 0.01, seeds)
        scores = 0.8 + luck + random.normal(0, 0.004, (arms, seeds))
        scores[1:] += gain
        yield {f"arm {i}": dict(enumerate(row)) for i, row in enumerate(scores.tolist())}


def claims(found):
    return [one.word in ("better", "worse") for one in found.values()]


@pytest.mark.parametrize(("arms", "seeds"), [(2, 3), (5, 3), (9, 5)])
def test_without_a_difference_few_grids_claim_one(arms, seeds):
    count = 1000
    found = [differences(grid, "arm 0") for grid in grids(count, arms=arms, seeds=seeds)]
    share = sum(any(claims(one)) for one in found) / count
    error = math.sqrt(LEVEL * (1 - LEVEL) / count)
    assert share <= LEVEL + 3 * error
    if arms > 2:  # without the adjustment that would not hold
        naive = sum(any(d.p < LEVEL for d in one.values()) for one in found) / count
        assert naive > LEVEL + 3 * error


def test_a_difference_that_is_there_is_found():
    found = [differences(g, "arm 0") for g in grids(200, arms=4, seeds=5, gain=0.02)]
    words = [one.word for each in found for one in each.values()]
    assert words.count("better") > 0.9 * len(words)
    assert "worse" not in words
