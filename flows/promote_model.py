"""Decide whether the candidate becomes the champion.

    python -m flows.promote_model --model-name latentsync

A candidate that is as good as the champion on the same clips gets the alias champion, the
old champion becomes previous. Otherwise nothing moves, and the reasons are printed and
kept. The same numbers always give the same answer. The command's exit code is
0 after a promotion and 1 after a refusal, so `promote_model && ship` ships only what
was promoted. For automations the flow run ends in the state Promoted or Refused, and an event
`latentsync.model.promoted` or `latentsync.model.refused` says which version and why.
"""

from functools import partial
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.states import Completed

from datasets.errors import UserError
from flows.support.approval import check_server, wait_for_approval
from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.secrets import keep_secrets
from tasks.registry.decision import Decision, DecisionRecord, judge_file
from tasks.registry.promotion import preview, promote
from tasks.registry.tracking import check_uri, default_uri
from tasks.registry.versions import CHAMPION, Registry

REFUSED = 1


@task(name="decide", cache_policy=NO_CACHE)
@keep_secrets
def decide(
    model_name: str, uri: str, output: Path, version: int | None, approved: str = ""
) -> Decision:
    """Apply the policy, record the decision and move the aliases.

    Args:
        approved: digest of what a person approved; empty if nobody was asked.
    """
    return promote(model_name, uri, output, version, on_line=say, approved=approved)


@flow(name="promote-model")
@keep_secrets
def promote_model(
    model_name: str = "latentsync",
    tracking_uri: str | None = None,
    output: str = "runs/promotion",
    version: int | None = None,
    approve: bool = False,
    approve_hours: float = 72.0,
    dry_run: bool = False,
    evaluation: str | None = None,
    baseline: str = "",
    champion: str | None = None,
) -> DecisionRecord:
    """Compare the candidate with the champion and promote or refuse it.

    The command's exit code is 0 after a promotion and 1 after a refusal. The flow run
    itself completes in both cases, in a state that is called Promoted or Refused.

    Args:
        model_name: name in the model registry.
        tracking_uri: MLflow's store; by default a SQLite file under runs.
        output: folder for decision.json.
        version: version of the model; by default the one called candidate.
        approve: before a promotion, pause the flow run until a person resumes it.
        approve_hours: how long that person may take.
        dry_run: only say what would be decided about --evaluation; nothing is looked up or moved.
        evaluation: for a dry run, an evaluation.json.
        baseline: for a dry run, a trivial model in it instead of the model itself: input, still,
            grey, moment, shuffled or reference.
        champion: for a dry run, the champion's evaluation.json; without it, as a first model.

    Returns:
        The decision: verdict, candidate, champion_before, reasons and comparisons.
    """
    if dry_run:
        return _would_decide(model_name, evaluation, baseline, champion)
    if evaluation or baseline or champion:
        raise UserError("--evaluation, --baseline and --champion belong to --dry-run")
    uri = check_uri(tracking_uri or default_uri())
    approved = ""
    if approve:
        approved = _ask(model_name, uri, version, approve_hours)
    decision = decide(model_name, uri, Path(output).resolve(), version, approved)
    say(f"{model_name} version {decision.candidate}: {decision.verdict}")
    for reason in (*decision.reasons, *decision.notes):
        say(f"  {reason}")
    create_markdown_artifact(key="latentsync-decision", markdown=_markdown(decision))
    _announce(decision)
    record = decision.as_record()
    # A state as the result of a flow gives the run its name and the caller its data.
    return Completed(name=decision.verdict.capitalize(), data=record)  # type: ignore[return-value]


def _ask(model_name: str, uri: str, version: int | None, hours: float) -> str:
    """Wait for approval of what would be promoted.

    Returns:
        Digest of what was approved; empty where nothing would move.
    """
    check_server("--approve waits for a person to resume the flow run on a Prefect server")
    expected = preview(model_name, uri, version)
    if not expected.promoted or Registry(uri).alias(model_name, CHAMPION) == expected.candidate:
        return ""
    say(f"{model_name} version {expected.candidate} would be promoted")
    for reason in expected.reasons:
        say(f"  {reason}")
    create_markdown_artifact(key="latentsync-approval", markdown=_markdown(expected))
    before = expected.champion_before
    instead = "" if before is None else f" in place of version {before}"
    wait_for_approval(f"{model_name} version {expected.candidate} as champion{instead}", hours, say)
    return expected.inputs


def _announce(decision: Decision) -> None:
    emit_event(
        f"latentsync.model.{decision.verdict}",
        resource={
            "prefect.resource.id": f"latentsync.model.{decision.model}",
            "prefect.resource.name": decision.model,
            "latentsync.version": str(decision.candidate),
        },
        payload={
            "version": decision.candidate,
            "champion_before": decision.champion_before,
            "reasons": list(decision.reasons),
        },
    )


def _would_decide(
    model_name: str, evaluation: str | None, baseline: str, champion: str | None
) -> DecisionRecord:
    if not evaluation:
        raise UserError("--dry-run needs --evaluation, the evaluation.json to decide about")
    found = judge_file(Path(evaluation), baseline, Path(champion) if champion else None)
    what = f"{baseline} in {evaluation}" if baseline else evaluation
    say(f"{what}: would be {'promoted' if found.promoted else 'refused'}")
    for reason in (*found.reasons, *found.notes):
        say(f"  {reason}")
    return Decision(
        model_name, 0, None, found.promoted, found.reasons, found.comparisons, ""
    ).as_record()


def _markdown(decision: Decision) -> str:
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    return f"**{decision.model} version {decision.candidate}: {decision.verdict}**\n\n{reasons}\n"


def exit_code(decision: DecisionRecord) -> int:
    """0 for a promotion, REFUSED otherwise."""
    return 0 if decision["promoted"] else REFUSED


main = partial(run, promote_model, exit_code=exit_code)

if __name__ == "__main__":
    raise SystemExit(main())
