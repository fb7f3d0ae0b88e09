"""Decide once, by a policy, whether a candidate becomes champion.

Candidate and champion must have been evaluated on the same frozen clips with the same settings,
or their numbers decide nothing. The decision is recorded before an alias moves, so a run that is
killed in between is finished by the next one, and no candidate is
decided about twice.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, cast

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.registry.history import PROMOTION, Move, former_champions, move_champion
from tasks.registry.lock import exclusively
from tasks.registry.metric import MOTIONLESS, NO_FACE, NO_SILENCE, Evaluation
from tasks.registry.policy import Best, Comparison, Policy, PolicyResult, apply_policy, best_of
from tasks.registry.tracking import RunTracker
from tasks.registry.versions import (
    CANDIDATE,
    CHAMPION,
    DECISION_TAG,
    ModelVersion,
    Registry,
)
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
        )


def promote(
    model_name: str,
    uri: str,
    output: Path | None = None,
    version: int | None = None,
    policy: Policy | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> Decision:
    """Decide about a candidate and move the aliases accordingly.

    Args:
        model_name: registered model.
        uri: the MLflow store.
        output: folder for `decision.json`; None to write no file.
        version: the version to decide about; None takes the alias candidate.
        policy: the rules; None for the default ones.
        on_line: called with lines about what happens.

    Returns:
        The decision; the recorded one if nothing has changed since.

    Raises:
        UserError: there is no such model or candidate, or it was not evaluated or has another mask
            or crop from this release's, or another process moved an alias at the same moment.
    """
    registry = Registry(uri, must_exist=True)
    with exclusively(uri, f"{PROMOTION} {model_name}"):
        return _promote(registry, model_name, output, version, policy or Policy(), on_line)


def _promote(
    registry: Registry,
    model_name: str,
    output: Path | None,
    version: int | None,
    policy: Policy,
    on_line: Callable[[str], None],
) -> Decision:
    candidate = _candidate(registry, model_name, version)
    recorded = cast(DecisionRecord | None, candidate.json_tag(DECISION_TAG))
    champion_number = registry.alias(model_name, CHAMPION)
    if is_outdated(candidate.tags) and champion_number != candidate.version:
        raise UserError(
            f"{model_name} version {candidate.version} was made with a mask or crop different from "
            "this release's and cannot run in it: train or import again"
        )
    evaluation = candidate.evaluation
    if evaluation is None:
        raise UserError(
            f"{model_name} version {candidate.version} has no evaluation: run "
            f"python -m flows.evaluate_latentsync --model models:/{model_name}/{candidate.version}"
        )
    decision = _find_repeated(recorded, champion_number, candidate, registry, policy)
    if decision is not None:
        on_line(
            f"version {candidate.version} was {decision.verdict} earlier, and nothing has changed"
        )
    else:
        champion = None
        if champion_number is not None:
            champion = registry.version(model_name, champion_number)
        best = _best(registry, policy, candidate)
        decision = _decide(policy, candidate, champion, best)
        text = json.dumps(decision.as_record(), sort_keys=True)
        registry.set_tags(model_name, candidate.version, {DECISION_TAG: text})
    if decision.promoted:
        try:
            _move(registry, decision)
        except UserError:
            # Another machine was faster: nothing was decided about this candidate after all.
            registry.remove_tag(model_name, candidate.version, DECISION_TAG)
            raise
    _record(registry, candidate, decision, output)
    return decision


def _candidate(registry: Registry, name: str, version: int | None) -> ModelVersion:
    number = version if version is not None else registry.alias(name, CANDIDATE)
    if number is None:
        raise UserError(f"{name} has no candidate in {registry.uri}: {registry.listing()}")
    return registry.version(name, number)


def _best(registry: Registry, policy: Policy, candidate: ModelVersion) -> Best:
    """What champions have reached on the candidate's clips; its own numbers do not count."""
    evaluation = candidate.evaluation
    assert evaluation is not None
    found = {}
    for number in former_champions(registry, candidate.name):
        version = registry.version(candidate.name, number)
        if number != candidate.version and version.evaluation and not is_outdated(version.tags):
            found[number] = version.evaluation
    return best_of(policy, found, evaluation["protocol_digest"])


def _inputs(policy: Policy, candidate: ModelVersion, champion: ModelVersion | None) -> str:
    return config_digest(
        {
            "policy": asdict(policy),
            "candidate": candidate.evaluation,
            "champion": champion and [champion.version, champion.evaluation],
        }
    )


def _find_repeated(
    recorded: DecisionRecord | None,
    champion_number: int | None,
    candidate: ModelVersion,
    registry: Registry,
    policy: Policy,
) -> Decision | None:
    """The earlier decision made from the same numbers, if there is one."""
    if recorded is None:
        return None
    decision = Decision.from_record(recorded)
    then = decision.champion_before
    if champion_number not in (then, candidate.version):
        return None
    champion = None if then is None else registry.version(candidate.name, then)
    return decision if decision.inputs == _inputs(policy, candidate, champion) else None


def _decide(
    policy: Policy, candidate: ModelVersion, champion: ModelVersion | None, best: Best
) -> Decision:
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
        _inputs(policy, candidate, champion),
        time.time(),
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


def _move(registry: Registry, decision: Decision) -> None:
    """Set the aliases as decided; does nothing if they are already set."""
    current = registry.alias(decision.model, CHAMPION)
    if current == decision.candidate:
        return
    if current != decision.champion_before:
        raise UserError(
            f"the champion of {decision.model} changed from version {decision.champion_before} to "
            f"{current} while this was decided: run promote-model again"
        )
    move_champion(
        registry,
        decision.model,
        Move(decision.candidate, current, "promoted", "", decision.decided_at),
    )


def _record(
    registry: Registry, candidate: ModelVersion, decision: Decision, output: Path | None
) -> None:
    """Store the decision in the candidate's MLflow run and in the output folder."""
    name = f"decision-version-{decision.candidate}.json"
    if candidate.run_id:
        RunTracker.attach(registry.uri, candidate.run_id).log_json(decision.as_record(), name)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(
            output / "decision.json",
            json.dumps(decision.as_record(), indent=2, ensure_ascii=False) + "\n",
        )


def dry_run(
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
        ours = {**ours, "metrics": known[baseline]}
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
