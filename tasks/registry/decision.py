"""A decision about a candidate: made from two evaluations by the policy, and kept as JSON."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from datasets.errors import UserError
from datasets.store.manifest import config_digest
from tasks.registry.metric import MOTIONLESS, NO_FACE, NO_SILENCE, Evaluation
from tasks.registry.policy import Best, Comparison, Policy, PolicyResult, apply_policy
from tasks.registry.versions import ModelVersion
from tasks.weights.bundle import is_outdated


class DecisionRecord(TypedDict):
    """A `Decision` as stored in `decision.json` and in the candidate's tag."""

    model: str
    candidate: int
    champion_before: int | None
    promoted: bool
    verdict: str
    reasons: Sequence[str]
    comparisons: Sequence[Comparison]
    inputs: str
    decided_at: float
    notes: NotRequired[Sequence[str]]


@dataclass(frozen=True)
class Decision:
    """The outcome for a candidate, and why."""

    model: str
    candidate: int
    champion_before: int | None
    promoted: bool
    reasons: tuple[str, ...]
    """Sentences with both numbers; for a refusal only those that speak against the candidate."""
    comparisons: tuple[Comparison, ...]
    """One per rule."""
    inputs: str
    """Digest of everything that the decision depends on."""
    decided_at: float = 0.0
    """Seconds since 1970."""
    notes: tuple[str, ...] = ()
    """What else to know about it."""

    @property
    def verdict(self) -> str:
        return "promoted" if self.promoted else "refused"

    def as_record(self) -> DecisionRecord:
        """The decision as JSON data."""
        return cast(DecisionRecord, {**asdict(self), "verdict": self.verdict})

    @classmethod
    def from_record(cls, content: DecisionRecord) -> "Decision":
        return cls(
            model=content["model"],
            candidate=content["candidate"],
            champion_before=content["champion_before"],
            promoted=content["promoted"],
            reasons=tuple(content["reasons"]),
            comparisons=tuple(content["comparisons"]),
            inputs=content["inputs"],
            decided_at=content["decided_at"],
            notes=tuple(content.get("notes", ())),
        )


def make_decision(
    policy: Policy, candidate: ModelVersion, champion: ModelVersion | None, best: Best
) -> Decision:
    """Decide about a candidate.

    Args:
        policy: the rules.
        candidate: a version that was evaluated.
        champion: the present champion; None if there is none.
        best: what champions have reached on the same clips.

    Raises:
        UserError: the champion could run but was not evaluated.
    """
    theirs = None
    if champion is not None and champion.version == candidate.version:
        # Its numbers or the policy have changed since: it is judged by the bars alone.
        champion = None
    if champion is not None:
        outdated = is_outdated(champion.tags)
        theirs = None if outdated else champion.evaluation
        if theirs is None and not outdated:
            raise UserError(
                f"the champion, {champion.name} version {champion.version}, has no evaluation: run "
                "python -m flows.evaluate_latentsync --model "
                f"models:/{champion.name}/{champion.version}"
            )
    ours = candidate.evaluation
    assert ours is not None
    verdict = apply_policy(policy, ours, theirs, best)
    reasons = verdict.reasons
    if champion is not None and theirs is None:
        reasons += (
            f"the champion, version {champion.version}, was made with a mask or crop different "
            "from this release's and cannot run in it: the candidate was judged by the bars alone",
        )
    missing = [
        entry.get("reason", "") if (entry := ours["metrics"].get(each["metric"])) else ""
        for each in verdict.comparisons
        if each["candidate"] is None and not each["holds"]
    ]
    if missing:
        reasons += (_way_out(candidate, champion, missing),)
    return Decision(
        candidate.name,
        candidate.version,
        None if champion is None else champion.version,
        verdict.promoted,
        reasons,
        verdict.comparisons,
        inputs_digest(policy, candidate, champion),
        time.time(),
        verdict.notes,
    )


def _way_out(candidate: ModelVersion, champion: ModelVersion | None, missing: Sequence[str]) -> str:
    """What to do about numbers missing for these reasons."""
    if all(NO_FACE in reason for reason in missing):
        return (
            "look at the evaluation's contact_sheet.png: if the generated faces are not faces, "
            "train with more steps; if the real ones are not either, use other videos"
        )
    if all(MOTIONLESS in reason for reason in missing):
        return "train with more steps: the lips do not move yet"
    alike = " (and the champion)" if champion is not None else ""
    more = "more frames per clip than the default 125"
    if all(NO_SILENCE in reason for reason in missing):
        more = "--silent-clips 1 or more"
    return (
        f"evaluate{alike} with {more}, then promote again: "
        "python -m flows.evaluate_latentsync "
        f"--model models:/{candidate.name}/{candidate.version} --dataset DATASET; if the clips "
        "of the dataset are shorter, refresh it with longer videos"
    )


def inputs_digest(policy: Policy, candidate: ModelVersion, champion: ModelVersion | None) -> str:
    """Digest of everything that a decision depends on."""
    return config_digest(
        {
            "policy": asdict(policy),
            "candidate": candidate.evaluation,
            "champion": champion and [champion.version, champion.evaluation],
        }
    )


def judge_file(
    evaluation: Path, baseline: str = "", champion: Path | None = None, policy: Policy | None = None
) -> PolicyResult:
    """What the policy would decide about an evaluation, or about a trivial model in it.

    Args:
        evaluation: an `evaluation.json`.
        baseline: name of a trivial model among its `baselines`; empty for the model itself.
        champion: the champion's `evaluation.json`; None for a first model.
        policy: the rules; None for those in force.

    Raises:
        UserError: a file is not an evaluation, or it has no such baseline.
    """
    ours = _measured(evaluation)
    if baseline:
        known = ours.get("baselines", {})
        if baseline not in known:
            raise UserError(
                f"{evaluation} has no baseline {baseline!r}: choose from "
                f"{', '.join(known) or 'nothing: evaluate again'}"
            )
        # Its numbers of single clips are not kept.
        ours = cast(Evaluation, {**ours, "metrics": known[baseline], "clip_values": None})
    theirs = None if champion is None else _measured(champion)
    return apply_policy(policy or Policy(), ours, theirs)


def _measured(path: Path) -> Evaluation:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as an evaluation: {error}") from error
    if not isinstance(content, dict) or not {"metrics", "protocol_digest"} <= content.keys():
        raise UserError(f"{path} is not an evaluation.json")
    return cast(Evaluation, content)
