"""Two hundred damaged files: each ends in rows or a reason, and harms nothing else.

Here file by file in this process: what the decoder makes of them, and at what price. The
whole way over Ray is in tests/e2e/test_poison.py.
"""

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from datasets.errors import Reason, SourceError
from datasets.media import probe, read_audio, read_frames
from tests.support.mutations import COUNT, Mutant, make_sources, mutants
from tests.support.portrait import blank

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


@pytest.mark.parametrize(
    ("damage", "end"),
    [
        ("sps-16000", Reason.UNREADABLE),
        ("sps-65536", Reason.UNREADABLE),
        ("mkv-65280", Reason.UNREADABLE),
        ("times-huge", Reason.UNREADABLE),
        ("pcm-rate-1", Reason.NO_AUDIO),
        ("pcm-channels-255", Reason.NO_AUDIO),
        ("entry-65535", "frames"),
        ("video-clock-0", "frames"),
    ],
)
def test_claims_that_cannot_be_true(
    damage: str, end: str, poison: list[Mutant], tmp_path: Path
) -> None:
    [mutant] = [each for each in poison if each.damage == damage]
    path = tmp_path / mutant.name
    path.write_bytes(mutant.data)
    assert outcome(path) == end
    if end == "frames":
        assert sum(1 for _ in read_frames(path)) < 100


def test_pictures_have_the_size_of_the_first(tmp_path: Path) -> None:
    """Recordings of calls change their size with the network, and so do damaged headers."""
    parts: list[bytes] = []
    for side in (96, 64):
        path = tmp_path / f"{side}.ts"
        with av.open(str(path), "w") as output:
            stream: Any = output.add_stream("mpeg2video", rate=25)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(blank(side), format="rgb24")
                frame.pts, frame.time_base = 10 * len(parts) + index, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        parts.append(path.read_bytes())
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(parts))
    shapes = [frame.rgb.shape for frame in read_frames(both)]
    assert len(shapes) > 12
    assert set(shapes) == {(96, 96, 3)}
