"""Which replaced versions keep their files, by hand-made histories."""

import pytest

from datasets.errors import UserError
from tasks.publish.retention import DAY_S, ReplacedVersion, Retention, files_of


def version(name: str, days_ago: float, *files: str) -> ReplacedVersion:
    return {"digest": name, "replaced_at": (100 - days_ago) * DAY_S, "files": [*files]}


HISTORY = [
    version("a", 30, "1.tar", "2.tar"),
    version("b", 3, "2.tar", "3.tar"),
    version("c", 1, "3.tar"),
    version("d", 0, "3.tar", "4.tar"),
]


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), "cd"),
        (Retention(keep_versions=0), ""),
        (Retention(keep_versions=3), "bcd"),
        (Retention(keep_versions=9), "abcd"),
        (Retention(keep_versions=0, keep_days=2), "cd"),
        (Retention(keep_versions=1, keep_days=7), "bcd"),
        (Retention(keep_versions=4, keep_days=0.5), "abcd"),
    ],
)
def test_versions_stay_by_number_and_by_age(retention: Retention, kept: str) -> None:
    found = retention.of(HISTORY, 100 * DAY_S)
    assert "".join(each["digest"] for each in found) == kept


def test_a_file_of_several_versions_is_named_once() -> None:
    assert files_of(HISTORY[1:]) == ["2.tar", "3.tar", "4.tar"]


def test_less_than_nothing_cannot_be_kept() -> None:
    with pytest.raises(UserError, match="-1 versions and 0 days cannot be kept"):
        Retention(keep_versions=-1)
