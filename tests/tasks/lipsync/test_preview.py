import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from datasets.media import VideoWriter, write_flac
from tasks.lipsync.video import preview_video
from tests.support.portrait import moving

FRAMES, SIDE = 40, 240


@pytest.fixture(scope="module")
def two_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small face on the left and a large one on the right; 1.6 s without sound."""
    path = tmp_path_factory.mktemp("video") / "two <b>faces</b>.mp4"
    small, large = moving(FRAMES, 160), moving(FRAMES, SIDE)
    with VideoWriter(path, 640, 320, 25, crf=8, preset="ultrafast") as writer:
        for left, right in zip(small, large, strict=True):
            frame = np.full((320, 640, 3), 90, np.uint8)
            frame[60:220, 40:200] = left[:, ::-1]
            frame[40 : 40 + SIDE, 340 : 340 + SIDE] = right
            writer.write(frame)
    return path


class Pictures(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")


def test_everybody_is_shown_with_a_number_that_face_takes(two_faces: Path, tmp_path: Path) -> None:
    speech, output = tmp_path / "s.flac", tmp_path / "out.mp4"
    write_flac(speech, np.full(16000, 0.1, np.float32), 16000)
    found, page, facts = preview_video(two_faces, speech, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.preview.html",
        "out.preview.json",
        "s.flac",
    ]
    assert [person.number for person in found.people] == [1, 2]
    small, large = found.people
    assert (small.chosen, large.chosen) == (False, True)
    assert "no sound to tell who speaks" in found.why
    # Only what a speech of one second shows was looked at.
    assert (found.looked_at_s, found.video_s) == (1.0, 1.6)
    assert small.seen == large.seen == [(0.0, 1.0)]
    assert small.seen_s == pytest.approx(1.0)
    assert small.speaks == []
    assert 40 < small.x < 200
    assert 340 < large.x < 580
    assert large.width_px > 1.3 * small.width_px
    about = json.loads(facts.read_text(encoding="utf-8"))
    assert about["video"] == two_faces.name
    assert [person["number"] for person in about["people"]] == [1, 2]
    assert about["people"][1]["x"] == large.x
    pictures = Pictures()
    text = page.read_text(encoding="utf-8")
    pictures.feed(text)
    assert len(pictures.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in pictures.sources)
    assert "b" not in pictures.tags
    assert f"--face {large.x},{large.y}@{large.at_s:.2f}" in text
