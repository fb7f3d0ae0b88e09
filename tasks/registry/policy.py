"""Rules that a candidate must satisfy, and what two evaluations come to by them."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Rule:
    """What one metric must satisfy."""

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
    champion; None for no bar."""

    def cost(self, value: float) -> float:
        """The value turned so that lower is better."""
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

    The tolerances are about the spread between two trainings of the same recipe with other
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


@dataclass(frozen=True)
class PolicyResult:
    """Outcome of a policy for two evaluations."""

    promoted: bool
    reasons: tuple[str, ...]
    comparisons: tuple[dict[str, Any], ...]


def apply_policy(
    policy: Policy, candidate: dict[str, Any], champion: dict[str, Any] | None
) -> PolicyResult:
    """Apply the rules.

    Args:
        policy: the rules.
        candidate: an evaluation: `protocol_digest` and `metrics` (name -> value, label, n).
        champion: the same; None when there is no champion.
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
    rule: Rule, candidate: dict[str, Any], champion: dict[str, Any] | None
) -> tuple[bool, str, dict[str, Any]]:
    ours = _measured(candidate, rule.metric)
    theirs = _measured(champion, rule.metric) if champion else None
    comparison = {
        "metric": rule.metric,
        "label": (ours or theirs or {}).get("label", ""),
        "candidate": ours and ours["value"],
        "champion": theirs and theirs["value"],
    }
    name = f"{rule.metric} ({comparison['label']})" if comparison["label"] else rule.metric
    if ours is None:
        holds = rule.bar is None and theirs is None
        reason = candidate["metrics"].get(rule.metric, {}).get("reason", "")
        sentence = f"{rule.metric} was not measured on the candidate"
        sentence += f": {reason}" if reason else ""
    elif champion is None:
        holds = rule.meets_bar(ours["value"])
        needed = "" if rule.bar is None else f", {_needed(rule)} {rule.bar:g}"
        sentence = f"{name} is {ours['value']:.3f}{needed}"
    elif theirs is None:
        holds = rule.meets_bar(ours["value"])
        sentence = f"{name} is {ours['value']:.3f}, not measured on the champion"
    else:
        holds = rule.holds(ours["value"], theirs["value"])
        allowed = f"{rule.tolerance:.0%}" if rule.relative else f"{rule.tolerance:g}"
        sentence = (
            f"{name} is {ours['value']:.3f}, the champion's {theirs['value']:.3f} "
            f"({rule.better.replace('_', ' ')} is better, {allowed} worse is allowed)"
        )
    return holds, sentence, {**comparison, "holds": holds}


def _measured(evaluation: dict[str, Any], metric: str) -> dict[str, Any] | None:
    """The entry of a metric; None when it is missing or could not be measured."""
    found: dict[str, Any] | None = evaluation["metrics"].get(metric)
    return found if found and found["value"] is not None else None


def _needed(rule: Rule) -> str:
    return "needed at least" if rule.better == "higher" else "allowed at most"
