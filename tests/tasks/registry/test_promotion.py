import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from datasets.errors import UserError
from tasks.registry.decision import Decision, DecisionRecord, judge_file
from tasks.registry.metric import MOTIONLESS, NO_FACE, NO_SILENCE, Measured
from tasks.registry.policy import Policy, Rule, apply_policy
from tasks.registry.promotion import _move, promote
from tasks.registry.versions import (
    CHAMPION,
    DECISION_TAG,
    PREVIOUS,
    Registry,
    record_evaluation,
)
from tests.support.fake_bundle import evaluation, registered, store_uri

__all__ = ["store_uri"]

RULES = Policy(
    (
        Rule("sync_c", "higher", 0.1, relative=True, bar=1.0),
        Rule("offset", "near_zero", 1.0, bar=2.0),
        Rule("fid", "lower", 5.0),
    )
)
GOOD = {"sync_c": 3.0, "offset": -1.0, "fid": 50.0}


def test_the_first_model_must_meet_the_bars() -> None:
    assert apply_policy(RULES, evaluation(**GOOD), None).promoted
    verdict = apply_policy(RULES, evaluation(**GOOD | {"offset": -3.0}), None)
    assert not verdict.promoted
    assert verdict.reasons == ("offset (test) is -3.000, allowed at most 2",)


def test_later_ones_must_be_as_good_within_the_tolerance() -> None:
    champion = evaluation(**GOOD)
    within = evaluation(sync_c=2.71, offset=2.0, fid=55.0)
    assert apply_policy(RULES, within, champion).promoted
    worse = apply_policy(RULES, evaluation(sync_c=2.69, offset=0.0, fid=10.0), champion)
    assert not worse.promoted
    assert len(worse.reasons) == 1
    assert "sync_c (test) is 2.690, the champion's 3.000" in worse.reasons[0]
    holds = {each["metric"]: each["holds"] for each in worse.comparisons}
    assert holds == {"sync_c": False, "offset": True, "fid": True}


def test_numbers_of_other_clips_are_not_compared() -> None:
    verdict = apply_policy(
        RULES, evaluation(**GOOD), evaluation(**GOOD) | {"protocol_digest": "other"}
    )
    assert not verdict.promoted
    assert "not evaluated on the same clips" in verdict.reasons[0]


def test_what_was_not_measured_does_not_pass_a_bar() -> None:
    unmeasured = evaluation(**GOOD)
    unmeasured["metrics"]["sync_c"]["value"] = None
    assert not apply_policy(RULES, unmeasured, None).promoted
    assert not apply_policy(RULES, unmeasured, evaluation(**GOOD)).promoted


def test_a_missing_number_is_refused_with_cause_and_way_out(tmp_path: Path, store_uri: str) -> None:
    name = "unmeasured"
    version = registered(store_uri, name, tmp_path / "one", b"one")
    short = evaluation(**GOOD)
    short["metrics"]["sync_c"] = {"value": None, "label": "x", "n": 0, "reason": "20 frames"}
    record_evaluation(name, version, store_uri, short)
    cause, way_out = promote(name, store_uri, policy=RULES).reasons
    assert cause == "sync_c was not measured on the candidate: 20 frames"
    assert f"flows.evaluate_latentsync --model models:/{name}/{version}" in way_out
    assert "more frames" in way_out
    assert "longer videos" in way_out
    short["metrics"]["sync_c"]["reason"] = f"{NO_FACE} 3% of the frames, 50% are needed"
    record_evaluation(name, version, store_uri, short)
    _, way_out = promote(name, store_uri, policy=RULES).reasons
    assert "contact_sheet.png" in way_out
    for reason, advice in (
        (f"{MOTIONLESS} in speech either", "train with more steps"),
        (NO_SILENCE, "with --silent-clips 1 or more, then promote again"),
    ):
        short["metrics"]["sync_c"]["reason"] = reason
        record_evaluation(name, version, store_uri, short)
        _, way_out = promote(name, store_uri, policy=RULES).reasons
        assert advice in way_out


def test_decisions_move_aliases_once(tmp_path: Path, store_uri: str) -> None:
    name = "promote-me"
    first = registered(store_uri, name, tmp_path / "one", b"one")
    registry = Registry(store_uri)
    with pytest.raises(UserError, match="has no evaluation"):
        promote(name, store_uri, policy=RULES)
    record_evaluation(name, first, store_uri, evaluation(**GOOD))
    assert promote(name, store_uri, tmp_path / "out", policy=RULES).promoted
    assert registry.alias(name, CHAMPION) == first
    assert json.loads((tmp_path / "out/decision.json").read_text())["verdict"] == "promoted"

    second = registered(store_uri, name, tmp_path / "two", b"two")
    record_evaluation(name, second, store_uri, evaluation(**GOOD | {"fid": 90.0}))
    refused = promote(name, store_uri, policy=RULES)
    assert refused.verdict == "refused"
    assert "fid (test) is 90.000, the champion's 50.000" in refused.reasons[0]
    assert registry.alias(name, CHAMPION) == first
    lines: list[str] = []
    assert promote(name, store_uri, policy=RULES, on_line=lines.append) == refused
    assert lines
    assert "refused earlier" in lines[0]

    # Better numbers are a new question.
    record_evaluation(name, second, store_uri, evaluation(**GOOD | {"fid": 40.0}))
    accepted = promote(name, store_uri, policy=RULES)
    assert accepted.promoted
    assert registry.alias(name, CHAMPION) == second
    assert registry.alias(name, PREVIOUS) == first
    assert promote(name, store_uri, policy=RULES) == accepted


def test_a_champion_of_another_mask_does_not_stand_in_the_way(
    tmp_path: Path, store_uri: str
) -> None:
    name = "outdated"
    registry = Registry(store_uri)
    first = registered(store_uri, name, tmp_path / "one", b"one")
    record_evaluation(name, first, store_uri, evaluation(**GOOD | {"sync_c": 9.0}))
    assert promote(name, store_uri, policy=RULES).promoted
    registry.set_tags(name, first, {"mask": "latentsync-1.5"})

    second = registered(store_uri, name, tmp_path / "two", b"two")
    record_evaluation(name, second, store_uri, evaluation(**GOOD | {"sync_c": 0.5}))
    # The bars hold for it as for a first model.
    assert not promote(name, store_uri, policy=RULES).promoted
    record_evaluation(name, second, store_uri, evaluation(**GOOD))
    decision = promote(name, store_uri, policy=RULES)
    assert decision.promoted
    assert decision.champion_before == first
    assert f"version {first}, was made with a mask or crop different " in decision.reasons[-1]
    assert registry.alias(name, CHAMPION) == second
    assert registry.alias(name, PREVIOUS) == first


def test_a_candidate_of_another_mask_never_becomes_champion(tmp_path: Path, store_uri: str) -> None:
    name = "outdated-candidate"
    registry = Registry(store_uri)
    version = registered(store_uri, name, tmp_path / "one", b"one")
    record_evaluation(name, version, store_uri, evaluation(**GOOD))
    registry.set_tags(name, version, {"mask": "latentsync-1.5"})
    with pytest.raises(UserError, match=rf"version {version} was made with a mask or crop diff"):
        promote(name, store_uri, policy=RULES)
    assert registry.alias(name, CHAMPION) is None


def test_a_run_killed_before_the_alias_moved_is_finished(
    tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "killed"
    version = registered(store_uri, name, tmp_path / "one", b"one")
    record_evaluation(name, version, store_uri, evaluation(**GOOD))
    registry = Registry(store_uri)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_alias", stop)
        with pytest.raises(KeyboardInterrupt):
            promote(name, store_uri, policy=RULES)
    assert registry.alias(name, CHAMPION) is None
    recorded = registry.version(name, version).json_tag(DECISION_TAG)
    assert recorded is not None
    decision = Decision.from_record(cast(DecisionRecord, recorded))
    assert promote(name, store_uri, policy=RULES) == decision
    assert registry.alias(name, CHAMPION) == version


def test_a_changed_policy_decides_anew(tmp_path: Path, store_uri: str) -> None:
    name = "policy"
    version = registered(store_uri, name, tmp_path / "one", b"one")
    record_evaluation(name, version, store_uri, evaluation(**GOOD))
    strict = Policy((replace(RULES.rules[0], bar=9.0),))
    assert not promote(name, store_uri, policy=strict).promoted
    assert promote(name, store_uri, policy=RULES).promoted


def test_nothing_to_promote_is_one_sentence(tmp_path: Path, store_uri: str) -> None:
    with pytest.raises(UserError, match="has no candidate"):
        promote("unknown-model", store_uri)
    with pytest.raises(UserError, match="there is no registry at"):
        promote("any", f"sqlite:///{tmp_path}/nothing.db")


@pytest.mark.parametrize(
    ("rule", "champion", "edge", "beyond"),
    [
        (Rule("m", "higher", 0.25), 2.0, 1.75, 1.7),
        (Rule("m", "lower", 0.25), 2.0, 2.25, 2.3),
        (Rule("m", "near_zero", 0.25), -2.0, 2.25, 2.3),
        (Rule("m", "near_zero", 0.25), 2.0, -2.25, -2.3),
        (Rule("m", "higher", 0.25, relative=True), 4.0, 3.0, 2.9),
        (Rule("m", "lower", 0.25, relative=True), 4.0, 5.0, 5.1),
        # A share of a negative value is not a negative tolerance.
        (Rule("m", "higher", 0.25, relative=True), -4.0, -5.0, -5.1),
    ],
)
def test_a_tolerance_is_just_allowed(
    rule: Rule, champion: float, edge: float, beyond: float
) -> None:
    policy = Policy((rule,))
    assert apply_policy(policy, evaluation(m=champion), evaluation(m=champion)).promoted
    assert apply_policy(policy, evaluation(m=edge), evaluation(m=champion)).promoted
    assert not apply_policy(policy, evaluation(m=beyond), evaluation(m=champion)).promoted


@pytest.mark.parametrize(
    ("better", "bar", "beyond"),
    [("higher", 1.5, 1.4), ("lower", 1.5, 1.6), ("near_zero", 2.0, -2.1)],
)
def test_a_bar_is_just_met(better: str, bar: float, beyond: float) -> None:
    policy = Policy((Rule("m", better, 0.0, bar=bar),))  # type: ignore[arg-type]
    assert apply_policy(policy, evaluation(m=bar), None).promoted
    assert not apply_policy(policy, evaluation(m=beyond), None).promoted


def test_one_bad_number_among_good_ones_refuses_and_is_the_only_reason() -> None:
    champion = evaluation(**GOOD)
    for name, value in (("sync_c", 0.5), ("offset", 9.0), ("fid", 500.0)):
        verdict = apply_policy(RULES, evaluation(**GOOD | {name: value}), champion)
        assert not verdict.promoted
        assert len(verdict.reasons) == 1
        assert verdict.reasons[0].startswith(f"{name} ")


BETTER = {
    "sync_c": "higher",
    "sync_d": "lower",
    "follows": "higher",
    "mouth_offset": "near_zero",
    "mouth_z": "higher",
    "leak_opening": "lower",
    "leak_moving": "lower",
    "leak_correlation": "lower",
    "closed": "higher",
    "ssim_mouth": "higher",
    "lmd": "lower",
    "fid": "lower",
    "fvd": "lower",
}


def test_the_policy_in_force_knows_which_way_every_number_is_better() -> None:
    usual = dict.fromkeys(BETTER, 10.0) | {"mouth_offset": 0.5}
    usual |= {name: 0.05 for name in BETTER if name.startswith("leak_")}
    champion = evaluation(**usual)
    assert {rule.metric for rule in Policy().rules} == BETTER.keys()
    assert apply_policy(Policy(), champion, champion).promoted
    for name, better in BETTER.items():
        much = {"higher": (20.0, 5.0), "lower": (5.0, 20.0), "near_zero": (0.0, -5.0)}[better]
        if name.startswith("leak_"):
            much = (0.0, 0.29 if name != "leak_moving" else 0.16)
        verdicts = [apply_policy(Policy(), evaluation(**usual | {name: v}), champion) for v in much]
        assert [verdict.promoted for verdict in verdicts] == [True, False], name


def test_a_bar_may_hold_only_where_there_is_a_number() -> None:
    policy = Policy((Rule("closed", "higher", 0.2, bar=0.5, if_measured=True),))
    assert apply_policy(policy, evaluation(fid=1.0), None).promoted
    assert apply_policy(policy, evaluation(closed=0.5), None).promoted
    assert not apply_policy(policy, evaluation(closed=0.49), None).promoted
    # What was measured on the champion must be measured.
    assert not apply_policy(policy, evaluation(fid=1.0), evaluation(closed=0.9)).promoted
    rules = {rule.metric: rule for rule in Policy().rules}
    assert [name for name, rule in rules.items() if rule.if_measured] == ["closed"]


@pytest.mark.parametrize(
    ("metric", "just", "beyond"),
    [
        ("leak_opening", 0.3, 0.31),
        ("leak_moving", 0.25, 0.26),
        ("leak_correlation", 0.3, 0.31),
        ("closed", 0.5, 0.49),
    ],
)
def test_leaks_and_lips_that_do_not_close_are_refused(
    metric: str, just: float, beyond: float
) -> None:
    rule = next(rule for rule in Policy().rules if rule.metric == metric)
    policy = Policy((rule,))
    assert apply_policy(policy, evaluation(**{metric: just}), None).promoted
    assert not apply_policy(policy, evaluation(**{metric: beyond}), None).promoted


def test_what_neither_has_is_no_reason_and_what_only_the_champion_has_is_one() -> None:
    ours = {name: value for name, value in GOOD.items() if name != "fid"}
    assert apply_policy(RULES, evaluation(**ours), evaluation(**ours)).promoted
    refused = apply_policy(RULES, evaluation(**ours), evaluation(**GOOD))
    assert refused.reasons == ("fid was not measured on the candidate",)
    # Where only the candidate has a number, its bar decides.
    champion = evaluation(**{name: value for name, value in GOOD.items() if name != "offset"})
    assert apply_policy(RULES, evaluation(**GOOD), champion).promoted
    assert not apply_policy(RULES, evaluation(**GOOD | {"offset": 2.5}), champion).promoted


def test_a_bar_holds_beside_a_champion_too() -> None:
    champion = evaluation(sync_c=0.9, offset=0.0, fid=10.0)
    refused = apply_policy(RULES, evaluation(sync_c=0.95, offset=0.0, fid=10.0), champion)
    assert refused.reasons == ("sync_c (test) is 0.950, needed at least 1",)


def test_small_losses_do_not_add_up(tmp_path: Path, store_uri: str) -> None:
    """Each candidate is 8 % worse than the one before, which alone would be allowed."""
    name, registry = "drift", Registry(store_uri)
    outcomes = []
    for number in range(12):
        version = registered(store_uri, name, tmp_path / str(number), str(number).encode())
        found = evaluation(sync_c=8.0 * 0.92**number, offset=0.0, fid=50.0)
        record_evaluation(name, version, store_uri, found)
        decision = promote(name, store_uri, policy=RULES)
        outcomes.append(decision.promoted)
    assert outcomes == [True, True] + [False] * 10
    assert registry.alias(name, CHAMPION) == 2
    third = Decision.from_record(
        cast(DecisionRecord, registry.version(name, 3).json_tag(DECISION_TAG))
    )
    assert "version 1, once champion, had 8.000: small losses" in third.reasons[0]
    # The second against the best that ever was, the third beyond it.
    assert third.comparisons[0]["best"] == 8.0
    # An older model that is as good may become champion again.
    assert promote(name, store_uri, version=1, policy=RULES).promoted


@pytest.mark.parametrize("now", [None, 3])
def test_a_champion_that_changed_meanwhile_is_not_overwritten(now: int | None) -> None:
    class Aliases:
        """A registry that has nothing but aliases and tags."""

        def __init__(self, champion: int | None) -> None:
            self.set = {CHAMPION: champion}
            self.tags: dict[str, str] = {}

        def alias(self, name: str, alias: str) -> int | None:
            return self.set.get(alias)

        def set_alias(self, name: str, alias: str, version: int) -> None:
            self.set[alias] = version

        def model_tags(self, name: str) -> dict[str, str]:
            return self.tags

        def set_model_tag(self, name: str, tag: str, value: str) -> None:
            self.tags[tag] = value

        def remove_model_tag(self, name: str, tag: str) -> None:
            del self.tags[tag]

    decision = Decision("m", 2, 1, True, (), (), "inputs")
    changed = Aliases(now)
    with pytest.raises(UserError, match=f"changed from version 1 to {now} while"):
        _move(changed, decision)  # type: ignore[arg-type]
    assert changed.set == {CHAMPION: now}
    same = Aliases(1)
    for _ in range(2):
        _move(same, decision)  # type: ignore[arg-type]
        assert same.set == {CHAMPION: 2, PREVIOUS: 1}
    assert len(same.tags) == 1


def test_who_was_slower_keeps_no_decision(
    tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, registry = "slower", Registry(store_uri)
    version = registered(store_uri, name, tmp_path / "one", b"one")
    record_evaluation(name, version, store_uri, evaluation(**GOOD))

    def overtaken(*_: object) -> None:
        raise UserError("another process changed it at the same moment")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_alias", overtaken)
        with pytest.raises(UserError, match="at the same moment"):
            promote(name, store_uri, policy=RULES)
    assert registry.version(name, version).json_tag(DECISION_TAG) is None
    assert promote(name, store_uri, policy=RULES).promoted


def test_a_dry_run_decides_about_files(tmp_path: Path) -> None:
    baselines = {"still": evaluation(**GOOD | {"offset": 9.0})["metrics"]}
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    ours.write_text(json.dumps({**evaluation(**GOOD), "baselines": baselines}))
    theirs.write_text(json.dumps(evaluation(**GOOD | {"sync_c": 9.0})))
    assert judge_file(ours, policy=RULES).promoted
    refused = judge_file(ours, "still", policy=RULES)
    assert refused.reasons == ("offset (test) is 9.000, allowed at most 2",)
    assert "the champion's 9.000" in judge_file(ours, champion=theirs, policy=RULES).reasons[0]
    with pytest.raises(UserError, match="has no baseline 'grey': choose from still"):
        judge_file(ours, "grey")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other\.json is not an evaluation"):
        judge_file(tmp_path / "other.json")
    with pytest.raises(UserError, match="cannot be read"):
        judge_file(tmp_path / "none.json")


def by_clip(*values: float, **others: float) -> Measured:
    """An evaluation whose sync_c comes from clips."""
    found = evaluation(**GOOD | {"sync_c": sum(values) / len(values)} | others)
    found["clip_values"] = {
        "clips": [f"clip-{number}" for number in range(len(values))],
        "speakers": [f"speaker-{number}" for number in range(len(values))],
        "values": {"sync_c": [*values]},
        "how": {"sync_c": "mean"},
    }
    return found


def test_a_loss_that_may_be_larger_than_allowed_is_refused() -> None:
    champion = by_clip(3.0, 3.0, 3.0, 3.0, 3.0, 3.0)
    # All a little worse: surely within the tolerance of 10 %.
    assert apply_policy(RULES, by_clip(2.9, 2.9, 2.9, 2.9, 2.9, 2.9), champion).promoted
    # The same mean, but nobody can tell what other clips would give.
    verdict = apply_policy(RULES, by_clip(4.4, 1.4, 4.4, 1.4, 4.4, 1.4), champion)
    assert not verdict.promoted
    (reason,) = verdict.reasons
    assert "sync_c (test) is 2.900, the champion's 3.000" in reason
    assert "but it may be worse by 1.1 (95 % interval over 6 clips): evaluate both on" in reason
    (comparison,) = [each for each in verdict.comparisons if each["metric"] == "sync_c"]
    assert comparison["difference"] is not None
    assert comparison["difference"]["value"] == pytest.approx(-0.1)
    assert not comparison["holds"]
    # Where lower is better it is the other end.
    lower = Policy((Rule("sync_c", "lower", 0.1, relative=True),))
    assert apply_policy(lower, by_clip(2.0, 2.1, 2.0, 2.1, 2.0, 2.1), champion).promoted
    assert not apply_policy(lower, by_clip(4.4, 1.4, 4.4, 1.4, 4.4, 1.4), champion).promoted
    # Much better on the whole, it may spread as it likes.
    assert apply_policy(RULES, by_clip(9.4, 6.4, 9.4, 6.4, 9.4, 6.4), champion).promoted


def test_a_decision_says_how_many_clips_would_show_a_loss() -> None:
    champion, spread = by_clip(3.0, 3.0, 3.0, 3.0), by_clip(4.0, 5.0, 4.0, 5.0)
    # Differences of 1 and 2, deviation 0.57735; 10 % are 0.3: (1.96 * 0.57735 / 0.3)^2 = 14.2.
    assert apply_policy(RULES, spread, champion).notes == (
        "by the spread of these clips a loss of 10% in sync_c shows from 15 clips on; there are 4",
    )
    assert apply_policy(RULES, spread, None).notes == ()
    assert apply_policy(RULES, evaluation(**GOOD), champion).notes == ()


def test_numbers_of_clips_are_kept_with_a_version(tmp_path: Path, store_uri: str) -> None:
    first = registered(store_uri, "by-clip", tmp_path / "one", b"one")
    record_evaluation("by-clip", first, store_uri, by_clip(3.0, 3.0, 3.0, 3.0))
    assert promote("by-clip", store_uri, policy=RULES).notes == ()
    second = registered(store_uri, "by-clip", tmp_path / "two", b"two")
    record_evaluation("by-clip", second, store_uri, by_clip(5.0, 1.0, 5.0, 1.0))
    refused = promote("by-clip", store_uri, policy=RULES)
    assert "but it may be worse by" in refused.reasons[0]
    assert "shows from" in refused.notes[0]
    assert promote("by-clip", store_uri, policy=RULES) == refused
