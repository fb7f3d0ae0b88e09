"""Make an earlier champion champion again.

    python -m flows.rollback_model --reason "lips lag on short clips"

Without a version it is the champion before the present one. Every move of the champion is
kept in the registry and shown as a table.
"""

import time
from dataclasses import asdict
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.support.artifacts import say, show_table
from flows.support.cli import run
from flows.support.secrets import keep_secrets
from tasks.registry.history import Move, read_moves, rollback
from tasks.registry.tracking import check_uri, default_uri
from tasks.registry.versions import Registry


@task(name="rollback", cache_policy=NO_CACHE)
@keep_secrets
def move_back(model_name: str, uri: str, reason: str, version: int | None) -> Move:
    """Move the alias and record why."""
    return rollback(model_name, uri, reason, version)


@flow(name="rollback-model")
@keep_secrets
def rollback_model(
    reason: str,
    model_name: str = "latentsync",
    version: int | None = None,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Make an earlier champion champion again, with a reason that is kept.

    Args:
        reason: why, for those who look later.
        model_name: name in the model registry.
        version: any version that was champion; by default the one before the present.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        The move: version, before, how, reason, at.
    """
    uri = check_uri(tracking_uri or default_uri())
    move = move_back(model_name, uri, reason, version)
    say(f"{model_name} version {move.version} is champion again, instead of {move.before}")
    moves = read_moves(Registry(uri), model_name)
    rows = [
        {**asdict(each), "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.at))}
        for each in moves
    ]
    show_table("latentsync-champions", rows, f"Champions of {model_name}")
    for row in rows:
        say(f"  {row['at']}  version {row['version']} {row['how']} {row['reason']}".rstrip())
    return asdict(move)


main = partial(run, rollback_model)

if __name__ == "__main__":
    raise SystemExit(main())
