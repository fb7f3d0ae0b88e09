"""Rules that a candidate must satisfy, and their outcome for its evaluation and others'.

Bars hold for every model. A number of clips is compared with the champion's clip by clip: even at
the end of the 95 % interval of the difference it must be within the tolerance. Beside the champion
a candidate is compared with the best that any champion has reached on the same clips, since losses
within the tolerance would otherwise add up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

from tasks.registry.metric import Measured, Metric
from tasks.registry.paired import clips_needed, paired_difference

POWER_OF = "sync_c"
"""The metric of which a decision says how many clips a loss would take to be seen."""


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
    """The least (or most, or largest absolute) value at which a model may become champion; None
    means no bar."""
    if_measured: bool = False
    """Whether a model without this number meets the bar, since what it is measured by is not
    always there."""

    def cost(self, value: float) -> float:
        """The value transformed so that lower is better."""
        return {"higher": -value, "lower": value, "near_zero": abs(value)}[self.better]

    def meets_bar(self, value: float) -> bool:
        """Whether the value suffices, whatever the champion's."""
        return self.bar is None or self.cost(value) <= self.cost(self.bar)

    def slack(self, champion: float) -> float:
        """How much worse than this value still counts as equal, in the metric's unit."""
        return self.tolerance * (abs(champion) if self.relative else 1.0)

    def holds(self, candidate: float, champion: float) -> bool:
        """Whether the candidate is at least as good within the tolerance."""
        return self.cost(candidate) <= self.cost(champion) + self.slack(champion)

    def worst(self, difference: Metric) -> float | None:
        """How much worse than the champion the candidate may be, at the end of the 95 % interval of
        the difference; None without an interval."""
        low, high = difference.get("low"), difference.get("high")
        if low is None or high is None:
            return None
        return -low if self.better == "higher" else high


@dataclass(frozen=True)
class Policy:
    """All rules; every one must hold.

    The tolerances are about the spread between two trainings of the same recipe with different
    seeds, so that equal models count as equal.
    """

    rules: tuple[Rule, ...] = (
        Rule("sync_c", "higher", 0.10, relative=True),
        Rule("sync_d", "lower", 0.05, relative=True),
        Rule("follows", "higher", 0.15, bar=0.5),
        Rule("mouth_offset", "near_zero", 1.0, bar=2.0),
        Rule("mouth_z", "higher", 0.20, relative=True, bar=1.5),
        Rule("leak_opening", "lower", 0.15, bar=0.3),
        Rule("leak_moving", "lower", 0.10, bar=0.25),
        Rule("leak_correlation", "lower", 0.20, bar=0.3),
        Rule("closed", "higher", 0.20, bar=0.5, if_measured=True),
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
    best: NotRequired[float | None]
    """The best of all champions on the same clips; missing in older decisions."""
    difference: NotRequired[Metric | None]
    """The candidate's less the champion's, clip by clip; None where the metric is not a number of
    clips. Missing in older decisions."""
    holds: bool


@dataclass(frozen=True)
class PolicyResult:
    """Outcome of a policy for two evaluations."""

    promoted: bool
    reasons: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    """What else to know: how much the clips can tell."""


Best = Mapping[str, tuple[float, int]]
"""Metric -> the best value that a champion has reached, and its version."""


def apply_policy(
    policy: Policy, candidate: Measured, champion: Measured | None, best: Best | None = None
) -> PolicyResult:
    """Apply the rules.

    Args:
        policy: the rules.
        candidate: its evaluation.
        champion: the champion's; None if there is no champion.
        best: what champions of before have reached on the same clips.
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
        holds, sentence, comparison = _apply(rule, candidate, champion, best or {})
        (good if holds else bad).append(sentence)
        comparisons.append(comparison)
    notes = _power(policy, candidate, champion) if champion is not None else ()
    return PolicyResult(not bad, tuple(bad or good), tuple(comparisons), notes)


def _power(policy: Policy, candidate: Measured, champion: Measured) -> tuple[str, ...]:
    """How many clips the loss that is allowed in a metric would take to be seen."""
    ours, theirs = candidate.get("clip_values"), champion.get("clip_values")
    value = _value(champion, POWER_OF)
    rules = [rule for rule in policy.rules if rule.metric == POWER_OF]
    if not rules or value is None or ours is None or theirs is None:
        return ()
    needed = clips_needed(POWER_OF, ours, theirs, rules[0].slack(value))
    if needed is None:
        return ()
    allowed = f"{rules[0].tolerance:.0%}" if rules[0].relative else f"{rules[0].tolerance:g}"
    return (
        f"by the spread of these clips a loss of {allowed} in {POWER_OF} shows from {needed} "
        f"clip{'s' * (needed != 1)} on; there are {len(ours['clips'])}",
    )


def _apply(
    rule: Rule, candidate: Measured, champion: Measured | None, best: Best
) -> tuple[bool, str, Comparison]:
    ours = _value(candidate, rule.metric)
    theirs = _value(champion, rule.metric) if champion else None
    label = _label(candidate if ours is not None else champion, rule.metric)
    name = f"{rule.metric} ({label})" if label else rule.metric
    if ours is None:
        holds = (rule.bar is None or rule.if_measured) and theirs is None
        entry = candidate["metrics"].get(rule.metric)
        reason = entry.get("reason", "") if entry else ""
        sentence = f"{rule.metric} was not measured on the candidate"
        sentence += f": {reason}" if reason else ""
    elif not rule.meets_bar(ours) or theirs is None:
        holds = rule.meets_bar(ours)
        needed = "" if rule.bar is None else f", {_needed(rule)} {rule.bar:g}"
        sentence = f"{name} is {ours:.3f}{needed}"
        if holds and champion is not None:
            sentence += ", not measured on the champion"
    else:
        holds = rule.holds(ours, theirs)
        allowed = f"{rule.tolerance:.0%}" if rule.relative else f"{rule.tolerance:g}"
        allowance = f"({rule.better.replace('_', ' ')} is better, {allowed} worse is allowed)"
        sentence = f"{name} is {ours:.3f}, the champion's {theirs:.3f} {allowance}"
    difference = _difference(rule.metric, candidate, champion)
    if holds and ours is not None and theirs is not None and difference is not None:
        worst = rule.worst(difference)
        if worst is not None and worst > rule.slack(theirs):
            holds = False
            sentence += (
                f", but it may be worse by {worst:.3g} (95 % interval over {difference['n']} "
                "clips): evaluate both on more clips"
            )
    if ours is not None and holds and rule.metric in best:
        ever, version = best[rule.metric]
        if not rule.holds(ours, ever):
            holds = False
            sentence = (
                f"{name} is {ours:.3f}, and version {version}, once champion, had {ever:.3f}: "
                "small losses from champion to champion have added up"
            )
    comparison: Comparison = {
        "metric": rule.metric,
        "label": label,
        "candidate": ours,
        "champion": theirs,
        "best": best[rule.metric][0] if rule.metric in best else None,
        "difference": difference,
        "holds": holds,
    }
    return holds, sentence, comparison


def _difference(name: str, candidate: Measured, champion: Measured | None) -> Metric | None:
    ours = candidate.get("clip_values")
    theirs = champion.get("clip_values") if champion is not None else None
    return paired_difference(name, ours, theirs) if ours and theirs else None


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


def best_of(policy: Policy, champions: Mapping[int, Measured], protocol: str) -> Best:
    """The best that champions have reached in each metric, on the clips of one protocol.

    Args:
        champions: version -> its evaluation.
        protocol: digest of the protocol whose numbers can be compared.
    """
    found: dict[str, tuple[float, int]] = {}
    for version, evaluation in sorted(champions.items()):
        if evaluation["protocol_digest"] != protocol:
            continue
        for rule in policy.rules:
            value = _value(evaluation, rule.metric)
            if value is None:
                continue
            if rule.metric not in found or rule.cost(value) < rule.cost(found[rule.metric][0]):
                found[rule.metric] = value, version
    return found
