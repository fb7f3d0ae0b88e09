"""Two hundred damaged files: each ends in rows or a reason, and harms nothing else.

Here file by file in this process: what the decoder makes of them, and at what price. The
whole way over Ray is in tests/e2e/test_poison.py.
"""

from collections import Counter
from pathlib import Path

import pytest

from datasets.errors import Reason, SourceError
from datasets.media import probe, read_audio, read_frames
from tests.mutations import COUNT, Mutant, make_sources, mutants

MOST_BYTES = 400 << 20
"""Resident memory by which a file of some kilobytes may make this process grow."""


@pytest.fixture(scope="module")
def poison(tmp_path_factory: pytest.TempPathFactory) -> list[Mutant]:
    return list(mutants(make_sources(tmp_path_factory.mktemp("sources"))))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident(name: str) -> int:
    """`VmRSS` or `VmHWM`, its peak, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise AssertionError(name)


def outcome(path: Path) -> str:
    """What the media layer makes of a file: a reason, or `frames`."""
    try:
        probe(path)
        read_audio(path)
        for _ in read_frames(path):
            pass
    except SourceError as error:
        return error.reason.value
    return "frames"


def test_mutants_are_many_and_always_the_same(poison: list[Mutant], tmp_path: Path) -> None:
    assert len(poison) == COUNT == len({mutant.name for mutant in poison})
    assert len({mutant.data for mutant in poison}) > COUNT - 10
    assert list(mutants(make_sources(tmp_path))) == poison


def test_good_videos_are_good(tmp_path: Path) -> None:
    make_sources(tmp_path)
    assert {outcome(path) for path in tmp_path.iterdir()} == {"frames"}


def test_no_file_breaks_the_decoder_or_takes_all_memory(
    poison: list[Mutant], tmp_path: Path
) -> None:
    ends: Counter[str] = Counter()
    greedy = {}
    for mutant in poison:
        path = tmp_path / mutant.name
        path.write_bytes(mutant.data)
        reset_peak()
        before = resident("VmRSS")
        ends[outcome(path)] += 1
        grown = resident("VmHWM") - before
        if grown > MOST_BYTES:
            greedy[mutant.name] = f"{grown >> 20} MiB"
        assert path.read_bytes() == mutant.data
        path.unlink()
    assert not greedy
    assert sum(ends.values()) == COUNT
    assert min(ends["frames"], ends[Reason.UNREADABLE], ends[Reason.NOT_MEDIA]) > 10, ends
