"""Rules that a candidate must satisfy, and their outcome for two evaluations."""

from dataclasses import dataclass
from typing import Literal, TypedDict

from tasks.registry.metric import Measured


@dataclass(frozen=True)
class Rule:
    """The requirement on one metric."""

    metric: str
    """Name in the evaluation."""
    better: Literal["higher", "lower", "near_zero"]
    """Which way is better; near_zero compares absolute values."""
    tolerance: float
    """How much worse than the champion's still counts as equal, in the metric's unit or,
    with `relative`, as a share of the champion's value."""
    relative: bool = False
    bar: float | None = None
    """The least (or most, or largest absolute) value at which a model may become the first
    champion; None means no bar."""

    def cost(self, value: float) -> float:
        """The value transformed so that lower is better."""
        return {"higher": -value, "lower": value, "near_zero": abs(value)}[self.better]

    def meets_bar(self, value: float) -> bool:
        """Whether the value suffices without a champion."""
        return self.bar is None or self.cost(value) <= self.cost(self.bar)

    def holds(self, candidate: float, champion: float) -> bool:
        """Whether the candidate is at least as good within the tolerance."""
        slack = self.tolerance * (abs(champion) if self.relative else 1.0)
        return self.cost(candidate) <= self.cost(champion) + slack


@dataclass(frozen=True)
class Policy:
    """All rules; every one must hold.

    The tolerances are about the spread between two trainings of the same recipe with different
    seeds, so that equal models count as equal.
    """

    rules: tuple[Rule, ...] = (
        Rule("sync_c", "higher", 0.10, relative=True),
        Rule("sync_d", "lower", 0.05, relative=True),
        Rule("mouth_offset", "near_zero", 1.0, bar=2.0),
        Rule("mouth_z", "higher", 0.20, relative=True, bar=1.5),
        Rule("ssim_mouth", "higher", 0.02, bar=0.2),
        Rule("lmd", "lower", 0.15, relative=True),
        Rule("fid", "lower", 0.15, relative=True),
        Rule("fvd", "lower", 0.15, relative=True),
    )


class Comparison(TypedDict):
    """What a rule found for two evaluations, as stored in decisions."""

    metric: str
    label: str
    """Label of the metric; empty if neither evaluation has it."""
    candidate: float | None
    """None if it was not measured."""
    champion: float | None
    holds: bool


@dataclass(frozen=True)
class PolicyResult:
    """Outcome of a policy for two evaluations."""

    promoted: bool
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def apply_policy(policy: Policy, candidate: Measured, champion: Measured | None) -> PolicyResult:
    """Apply the rules.

    Args:
        policy: the rules.
        candidate: its evaluation.
        champion: the champion's; None if there is no champion.
    """
    if champion is not None and candidate["protocol_digest"] != champion["protocol_digest"]:
        reason = (
            "candidate and champion were not evaluated on the same clips with the same settings "
            f"(protocol {candidate['protocol_digest'][:8]} against "
            f"{champion['protocol_digest'][:8]}): evaluate both alike"
        )
        return PolicyResult(False, (reason,), ())
    good: list[str] = []
    bad: list[str] = []
    comparisons = []
    for rule in policy.rules:
        holds, sentence, comparison = _apply(rule, candidate, champion)
        (good if holds else bad).append(sentence)
        comparisons.append(comparison)
    return PolicyResult(not bad, tuple(bad or good), tuple(comparisons))


def _apply(
    rule: Rule, candidate: Measured, champion: Measured | None
) -> tuple[bool, str, Comparison]:
    ours = _value(candidate, rule.metric)
    theirs = _value(champion, rule.metric) if champion else None
    label = _label(candidate if ours is not None else champion, rule.metric)
    name = f"{rule.metric} ({label})" if label else rule.metric
    if ours is None:
        holds = rule.bar is None and theirs is None
        entry = candidate["metrics"].get(rule.metric)
        reason = entry.get("reason", "") if entry else ""
        sentence = f"{rule.metric} was not measured on the candidate"
        sentence += f": {reason}" if reason else ""
    elif champion is None:
        holds = rule.meets_bar(ours)
        needed = "" if rule.bar is None else f", {_needed(rule)} {rule.bar:g}"
        sentence = f"{name} is {ours:.3f}{needed}"
    elif theirs is None:
        holds = rule.meets_bar(ours)
        sentence = f"{name} is {ours:.3f}, not measured on the champion"
    else:
        holds = rule.holds(ours, theirs)
        allowed = f"{rule.tolerance:.0%}" if rule.relative else f"{rule.tolerance:g}"
        sentence = (
            f"{name} is {ours:.3f}, the champion's {theirs:.3f} "
            f"({rule.better.replace('_', ' ')} is better, {allowed} worse is allowed)"
        )
    comparison: Comparison = {
        "metric": rule.metric,
        "label": label,
        "candidate": ours,
        "champion": theirs,
        "holds": holds,
    }
    return holds, sentence, comparison


def _value(evaluation: Measured, metric: str) -> float | None:
    """The value of a metric; None if it is missing or could not be measured."""
    found = evaluation["metrics"].get(metric)
    return found["value"] if found else None


def _label(evaluation: Measured | None, metric: str) -> str:
    """The label of a metric; empty if it is missing or could not be measured."""
    found = evaluation["metrics"].get(metric) if evaluation else None
    return found["label"] if found and found["value"] is not None else ""


def _needed(rule: Rule) -> str:
    return "needed at least" if rule.better == "higher" else "allowed at most"
