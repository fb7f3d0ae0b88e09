"""Decide once, by a policy, whether a candidate becomes champion.

Candidate and champion must have been evaluated on the same frozen clips with the same settings,
or their numbers decide nothing. The decision is recorded before an alias moves, so a run that is
killed in between is finished by the next one, and no candidate is
decided about twice.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from tasks.registry.decision import Decision, DecisionRecord, inputs_digest, make_decision
from tasks.registry.history import (
    PROMOTION,
    Move,
    finish_move,
    former_champions,
    move_champion,
)
from tasks.registry.lock import exclusively
from tasks.registry.policy import Best, Policy, best_of
from tasks.registry.tracking import RunTracker
from tasks.registry.versions import (
    CANDIDATE,
    CHAMPION,
    DECISION_TAG,
    ModelVersion,
    Registry,
)
from tasks.weights.bundle import is_outdated


def promote(
    model_name: str,
    uri: str,
    output: Path | None = None,
    version: int | None = None,
    policy: Policy | None = None,
    on_line: Callable[[str], None] = lambda _: None,
    approved: str = "",
) -> Decision:
    """Decide about a candidate and move the aliases accordingly.

    Args:
        model_name: registered model.
        uri: the MLflow store.
        output: folder for `decision.json`; None to write no file.
        version: the version to decide about; None takes the alias candidate.
        policy: the rules; None for the default ones.
        on_line: called with lines about what happens.
        approved: the `inputs` of the decision that a person approved; empty if nobody was asked.

    Returns:
        The decision; the recorded one if nothing has changed since.

    Raises:
        UserError: there is no such model or candidate, or it was not evaluated or has another mask
            or crop from this release's, or another process moved an alias at the same moment, or
            what was approved is no longer what would be decided.
        ModelFileError: signatures are asked for, and something about a version is not signed.
    """
    registry = Registry(uri, must_exist=True)
    with exclusively(uri, f"{PROMOTION} {model_name}"):
        finish_move(registry, model_name)
        return _promote(
            registry, model_name, output, version, policy or Policy(), on_line, approved
        )


def preview(
    model_name: str, uri: str, version: int | None = None, policy: Policy | None = None
) -> Decision:
    """What `promote` would decide now; nothing is recorded or moved.

    Raises:
        UserError, ModelFileError: as for `promote`.
    """
    registry, policy = Registry(uri, must_exist=True), policy or Policy()
    with exclusively(uri, f"{PROMOTION} {model_name}"):
        candidate = _judged(registry, model_name, version)
        decision, _ = _find_or_decide(registry, candidate, policy)
    return decision


def _promote(
    registry: Registry,
    model_name: str,
    output: Path | None,
    version: int | None,
    policy: Policy,
    on_line: Callable[[str], None],
    approved: str,
) -> Decision:
    candidate = _judged(registry, model_name, version)
    decision, repeated = _find_or_decide(registry, candidate, policy)
    if approved and decision.promoted and decision.inputs != approved:
        raise UserError(
            f"the evaluation of {model_name} version {candidate.version} or the champion changed "
            "while approval was awaited: run promote-model again"
        )
    if repeated:
        on_line(
            f"version {candidate.version} was {decision.verdict} earlier, and nothing has changed"
        )
    else:
        registry.state(model_name, candidate.version, DECISION_TAG, decision.as_record())
    if decision.promoted:
        try:
            _move(registry, decision)
        except UserError:
            # Another machine was faster: nothing was decided about this candidate after all.
            registry.remove_tag(model_name, candidate.version, DECISION_TAG)
            raise
    _record(registry, candidate, decision, output)
    return decision


def _judged(registry: Registry, model_name: str, version: int | None) -> ModelVersion:
    """The candidate, which can run in this release and has an evaluation."""
    candidate = _candidate(registry, model_name, version)
    champion = registry.alias(model_name, CHAMPION)
    if is_outdated(candidate.tags) and champion != candidate.version:
        raise UserError(
            f"{model_name} version {candidate.version} was made with a mask or crop different from "
            "this release's and cannot run in it: train or import again"
        )
    if candidate.evaluation is None:
        raise UserError(
            f"{model_name} version {candidate.version} has no evaluation: run "
            f"python -m flows.evaluate_latentsync --model models:/{model_name}/{candidate.version}"
        )
    return candidate


def _find_or_decide(
    registry: Registry, candidate: ModelVersion, policy: Policy
) -> tuple[Decision, bool]:
    """The decision, and whether it was made before from the same numbers."""
    recorded = cast(DecisionRecord | None, candidate.json_tag(DECISION_TAG))
    number = registry.alias(candidate.name, CHAMPION)
    found = _find_repeated(recorded, number, candidate, registry, policy)
    if found is not None:
        return found, True
    champion = None if number is None else registry.checked(candidate.name, number)
    return make_decision(policy, candidate, champion, _best(registry, policy, candidate)), False


def _candidate(registry: Registry, name: str, version: int | None) -> ModelVersion:
    number = version if version is not None else registry.alias(name, CANDIDATE)
    if number is None:
        raise UserError(f"{name} has no candidate in {registry.uri}: {registry.listing()}")
    return registry.checked(name, number)


def _best(registry: Registry, policy: Policy, candidate: ModelVersion) -> Best:
    """What champions have reached on the candidate's clips; its own numbers do not count."""
    evaluation = candidate.evaluation
    assert evaluation is not None
    found = {}
    for number in former_champions(registry, candidate.name):
        version = registry.checked(candidate.name, number)
        if number != candidate.version and version.evaluation and not is_outdated(version.tags):
            found[number] = version.evaluation
    return best_of(policy, found, evaluation["protocol_digest"])


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
    return decision if decision.inputs == inputs_digest(policy, candidate, champion) else None


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
        Move(decision.candidate, current, "promoted", "", time.time()),
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
