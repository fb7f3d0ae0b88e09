"""Who was champion, and the way back."""

from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.registry.history import UNFINISHED, former_champions, read_moves, rollback
from tasks.registry.policy import Policy, Rule
from tasks.registry.promotion import promote
from tasks.registry.versions import CHAMPION, PREVIOUS, Registry, record_evaluation
from tests.support.fake_bundle import evaluation, registered, store_uri

__all__ = ["store_uri"]

RULES = Policy((Rule("sync_c", "higher", 0.1, relative=True, bar=1.0),))


def champions(uri: str, name: str, folder: Path, *values: float) -> Registry:
    """Versions with these numbers, promoted one after the other where they can be."""
    for number, value in enumerate(values):
        version = registered(uri, name, folder / str(number), str(number).encode())
        record_evaluation(name, version, uri, evaluation(sync_c=value))
        promote(name, uri, policy=RULES)
    return Registry(uri)


def test_the_champion_before_comes_back(tmp_path: Path, store_uri: str) -> None:
    registry = champions(store_uri, "back", tmp_path, 3.0, 4.0)
    move = rollback("back", store_uri, " it stutters ")
    assert (move.version, move.before, move.how) == (1, 2, "rolled back")
    assert registry.alias("back", CHAMPION) == 1
    assert registry.alias("back", PREVIOUS) == 2
    found = [
        (each.version, each.before, each.how, each.reason) for each in read_moves(registry, "back")
    ]
    assert found == [
        (1, None, "promoted", ""),
        (2, 1, "promoted", ""),
        (1, 2, "rolled back", "it stutters"),
    ]
    # And forth again.
    assert rollback("back", store_uri, "it was not that").version == 2


def test_any_former_champion_can_come_back_and_nobody_else(tmp_path: Path, store_uri: str) -> None:
    registry = champions(store_uri, "any", tmp_path, 3.0, 4.0, 2.0, 5.0)
    assert former_champions(registry, "any") == [1, 2, 4]
    with pytest.raises(UserError, match="version 3 was never champion: choose from 1, 2, 4"):
        rollback("any", store_uri, "x", version=3)
    with pytest.raises(UserError, match="version 4 is champion already"):
        rollback("any", store_uri, "x", version=4)
    assert rollback("any", store_uri, "x", version=1).version == 1
    assert registry.alias("any", PREVIOUS) == 4


def test_mistakes_are_one_sentence(tmp_path: Path, store_uri: str) -> None:
    champions(store_uri, "first", tmp_path, 3.0)
    with pytest.raises(UserError, match="needs a reason"):
        rollback("first", store_uri, "  ")
    with pytest.raises(UserError, match="version 1 is the first champion of first"):
        rollback("first", store_uri, "x")
    with pytest.raises(UserError, match="nobody has no champion"):
        rollback("nobody", store_uri, "x")


def test_a_version_that_cannot_run_does_not_come_back(tmp_path: Path, store_uri: str) -> None:
    registry = champions(store_uri, "outdated-back", tmp_path, 3.0, 4.0)
    registry.set_tags("outdated-back", 1, {"mask": "another"})
    with pytest.raises(UserError, match="version 1 was made with a mask or crop different"):
        rollback("outdated-back", store_uri, "x")


class Killed(BaseException):
    """Nothing of ours runs after a kill."""


WRITES = ("set_model_tag", "set_alias", "remove_model_tag")


def kill_at(patch: pytest.MonkeyPatch, write: int) -> None:
    """Let a move of the champion be killed before its write of this number, from 0."""
    made: list[str] = []

    def counted(name: str) -> None:
        honest = getattr(Registry, name)

        def instead(registry: Registry, *arguments: object) -> None:
            if len(made) == write:
                raise Killed
            made.append(name)
            honest(registry, *arguments)

        patch.setattr(Registry, name, instead)

    for name in WRITES:
        counted(name)


def test_a_killed_move_leaves_no_gap_in_the_history(
    tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "killed-moves"
    registry = champions(store_uri, name, tmp_path, 3.0, 4.0)
    history = [1, 2]
    # 0: nothing is written; then the note, both aliases, the history, and the note is still there.
    for write in range(5):
        for command, target in ((rollback, 1), (promote, 2)):
            arguments = {"reason": "x"} if command is rollback else {"policy": RULES}
            with monkeypatch.context() as patch:
                kill_at(patch, write)
                with pytest.raises(Killed):
                    command(name, store_uri, **arguments)
            # The same command finishes it, once.
            command(name, store_uri, **arguments)
            history.append(target)
            aliases = registry.alias(name, CHAMPION), registry.alias(name, PREVIOUS)
            assert aliases == (target, 3 - target)
            assert [each.version for each in read_moves(registry, name)] == history
            assert UNFINISHED not in registry.model_tags(name)


def test_an_alias_moved_by_hand_after_a_kill_stays(
    tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "by-hand"
    registry = champions(store_uri, name, tmp_path, 3.0, 4.0, 5.0)
    with monkeypatch.context() as patch:
        kill_at(patch, 1)
        with pytest.raises(Killed):
            rollback(name, store_uri, "x", version=2)
    registry.set_alias(name, CHAMPION, 1)
    assert rollback(name, store_uri, "y", version=3).before == 1
    assert [each.version for each in read_moves(registry, name)] == [1, 2, 3, 3]
