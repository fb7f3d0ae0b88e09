"""Who has been champion, since when and why; and the way back to an earlier one.

Every move of the champion is a tag of the registered model, so it is there wherever the registry
is, and nothing is overwritten.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from datasets.errors import UserError
from tasks.registry.lock import exclusively
from tasks.registry.versions import CHAMPION, DECISION_TAG, PREVIOUS, Registry
from tasks.weights.bundle import is_outdated

TAG = "champion."
UNFINISHED = "moving_champion"
"""The tag of a model that holds a move while it is carried out."""
PROMOTION = "promotion"
"""What must not be done by two processes at once."""


@dataclass(frozen=True)
class Move:
    """A version became champion."""

    version: int
    before: int | None
    """The champion until then."""
    how: Literal["promoted", "rolled back"]
    reason: str
    at: float
    """Seconds since 1970."""


def read_moves(registry: Registry, name: str) -> list[Move]:
    """All moves of a model's champion, oldest first; those of older releases are not there."""
    tags = registry.model_tags(name)
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(TAG)]


def former_champions(registry: Registry, name: str) -> list[int]:
    """Versions that are or have been champion, ascending."""
    known = {move.version for move in read_moves(registry, name)}
    for each in registry.versions(name):
        # Older releases kept decisions only.
        decision = each.json_tag(DECISION_TAG)
        if CHAMPION in each.aliases or PREVIOUS in each.aliases or (decision or {}).get("promoted"):
            known.add(each.version)
    return sorted(known)


def move_champion(registry: Registry, name: str, move: Move) -> None:
    """Set the aliases, and record it.

    What is about to happen is noted first, so that `finish_move` finds a move that was interrupted.

    Raises:
        UserError: another machine moved the alias at the same moment.
    """
    registry.set_model_tag(name, UNFINISHED, json.dumps(asdict(move)))
    try:
        _carry_out(registry, name, move)
    except UserError:
        registry.remove_model_tag(name, UNFINISHED)
        raise
    registry.remove_model_tag(name, UNFINISHED)


def finish_move(registry: Registry, name: str) -> Move | None:
    """Finish what a killed process had begun; the caller holds the lock.

    Returns:
        The move; None if there was none, or somebody has moved the alias since.
    """
    text = registry.model_tags(name).get(UNFINISHED)
    if text is None:
        return None
    move = Move(**json.loads(text))
    done = None
    if registry.alias(name, CHAMPION) in (move.before, move.version):
        _carry_out(registry, name, move)
        done = move
    registry.remove_model_tag(name, UNFINISHED)
    return done


def _carry_out(registry: Registry, name: str, move: Move) -> None:
    if move.before is not None:
        registry.set_alias(name, PREVIOUS, move.before)
    registry.set_alias(name, CHAMPION, move.version)
    moves = read_moves(registry, name)
    if moves[-1:] != [move]:
        registry.set_model_tag(name, f"{TAG}{len(moves) + 1:05d}", json.dumps(asdict(move)))


def rollback(name: str, uri: str, reason: str, version: int | None = None) -> Move:
    """Make an earlier champion champion again.

    Args:
        name: registered model.
        uri: the MLflow store.
        reason: why; it is kept.
        version: the version to go back to; None takes the champion before the present one.

    Raises:
        UserError: there is no champion or none before it, the version was never champion or cannot
            run in this release, or no reason was given.
    """
    if not reason.strip():
        raise UserError("a rollback needs a reason, which is kept: give --reason")
    registry = Registry(uri, must_exist=True)
    with exclusively(uri, f"{PROMOTION} {name}"):
        finished = finish_move(registry, name)
        asked = None if finished is None else finished.version
        if finished is not None and finished.how == "rolled back" and version in (None, asked):
            # Most likely this very command, which was killed.
            return finished
        current = registry.alias(name, CHAMPION)
        if current is None:
            raise UserError(f"{name} has no champion: {registry.listing()}")
        target = registry.alias(name, PREVIOUS) if version is None else version
        if target is None:
            raise UserError(f"version {current} is the first champion of {name}: name a --version")
        if target == current:
            raise UserError(f"{name} version {current} is champion already")
        former = former_champions(registry, name)
        if target not in former:
            raise UserError(
                f"{name} version {target} was never champion: choose from {_listed(former)}, or "
                "promote it"
            )
        if is_outdated(registry.version(name, target).tags):
            raise UserError(
                f"{name} version {target} was made with a mask or crop different from this "
                "release's and cannot run in it: train or import again"
            )
        move = Move(target, current, "rolled back", reason.strip(), time.time())
        move_champion(registry, name, move)
    return move


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "nothing"
