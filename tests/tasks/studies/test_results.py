"""What becomes of claims, by values worked out by hand."""

import math

import pytest

from tasks.studies.results import (
    Number,
    Outcome,
    claim_rows,
    judge,
    numbers_of,
    table_rows,
)
from tasks.studies.study import Arm, Claim, MetricOfStudy, Study

STUDY = Study(
    name="s",
    about="a",
    arm=[Arm("a"), Arm("b")],
    metric=[MetricOfStudy("syncnet.accuracy", "higher"), MetricOfStudy("evaluation.fvd", "lower")],
    claim=[
        Claim("a is more accurate", "syncnet.accuracy", "a", "b"),
        Claim("a has the lower FVD", "evaluation.fvd", "a", "b"),
    ],
)


def outcomes(**values: list[float]) -> list[Outcome]:
    """`a_fvd=[1, 2]`: two seeds of arm a."""
    names = {"accuracy": "syncnet.accuracy", "fvd": "evaluation.fvd"}
    found: dict[tuple[str, int], dict[str, Number]] = {}
    for key, numbers in values.items():
        arm, _, metric = key.partition("_")
        for seed, value in enumerate(numbers, 1):
            found.setdefault((arm, seed), {})[names[metric]] = Number(value)
    return [Outcome(arm, seed, numbers, 60.0) for (arm, seed), numbers in found.items()]


def test_a_claim_is_confirmed_where_the_interval_lies_on_its_side() -> None:
    accuracy, fvd = judge(
        STUDY,
        outcomes(
            a_accuracy=[0.92, 0.90, 0.94], b_accuracy=[0.80, 0.80, 0.82], a_fvd=[9, 7], b_fvd=[4, 4]
        ),
    )
    # Differences 0.12, 0.10, 0.12: mean 0.11333, deviation 0.011547, t(2) = 4.302653.
    assert accuracy.verdict == "confirmed"
    assert accuracy.difference == pytest.approx(0.113333, abs=1e-5)
    assert accuracy.low == pytest.approx(0.113333 - 4.302653 * 0.011547 / 3**0.5, abs=1e-5)
    assert accuracy.high == pytest.approx(0.113333 + 4.302653 * 0.011547 / 3**0.5, abs=1e-5)
    # Lower is better, and it is higher by 5 and 3: mean -4, deviation 1.41421, t(1) = 12.7062.
    assert fvd.difference == pytest.approx(-4)
    assert fvd.low == pytest.approx(-4 - 12.7062 * 1.414214 / 2**0.5, abs=1e-3)
    assert fvd.verdict == "not confirmed"


def test_the_opposite_is_said_and_so_is_what_nobody_can_tell() -> None:
    accuracy, fvd = judge(
        STUDY, outcomes(a_accuracy=[0.7, 0.71, 0.69], b_accuracy=[0.9, 0.91, 0.9], a_fvd=[1, 2, 3])
    )
    assert accuracy.verdict == "contradicted"
    assert fvd.verdict == "not testable"
    assert fvd.seeds == 0
    (row,) = claim_rows([fvd])
    assert row["difference"] == row["95 % interval"] == "–"


def test_one_seed_confirms_nothing() -> None:
    accuracy, _ = judge(STUDY, outcomes(a_accuracy=[0.9], b_accuracy=[0.5]))
    assert accuracy.verdict == "not confirmed"
    assert math.isnan(accuracy.low)
    assert accuracy.difference == pytest.approx(0.4)


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    both = outcomes(a_accuracy=[0.9, 0.9, 0.1], b_accuracy=[0.5, 0.6])
    accuracy, _ = judge(STUDY, both)
    assert accuracy.seeds == 2
    assert accuracy.difference == pytest.approx(0.35)
    # The first seed of b has failed.
    last = [
        each
        for each in outcomes(a_accuracy=[0.1, 0.9, 0.9], b_accuracy=[0.0, 0.5, 0.6])
        if (each.arm, each.seed) != ("b", 1)
    ]
    accuracy, _ = judge(STUDY, last)
    assert accuracy.seeds == 2
    assert accuracy.difference == pytest.approx(0.35)


def test_numbers_come_with_their_intervals_and_gaps_stay_gaps() -> None:
    found = numbers_of(
        STUDY,
        {
            "syncnet": {"accuracy": 0.9, "loss": 1.0},
            "evaluation": {"fvd": {"value": 2.0, "low": 1.0, "high": 3.0, "label": "", "n": 4}},
        },
    )
    assert found == {"syncnet.accuracy": Number(0.9), "evaluation.fvd": Number(2.0, 1.0, 3.0)}
    missing = {"value": None, "label": "", "n": 0}
    assert (
        numbers_of(STUDY, {"evaluation": {"fvd": missing}, "syncnet": {"accuracy": math.nan}}) == {}
    )


def test_the_table_has_a_row_for_each_arm_and_says_what_is_missing() -> None:
    found = [*outcomes(a_accuracy=[0.8, 0.9]), Outcome("b", 1, reason="no dataset")]
    first, second = table_rows(STUDY, found)
    assert first == {
        "arm": "a",
        "seeds": 2,
        "syncnet.accuracy": "0.85 ± 0.071",
        "evaluation.fvd": "–",
        "minutes": 2.0,
        "note": "",
    }
    assert (second["seeds"], second["note"]) == (0, "no dataset")


def test_outcomes_survive_being_written() -> None:
    (one,) = outcomes(a_accuracy=[0.5])
    full = Outcome(
        "a", 2, {"m": Number(1.0, 0.5, 1.5)}, 3.0, {"syncnet.heldout_loss": [(10, 0.5)]}, "run"
    )
    for each in (one, full):
        assert Outcome.from_record(each.as_record()) == each
