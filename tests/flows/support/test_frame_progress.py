from flows.support.frame_progress import FrameLines


def test_lines_come_every_few_seconds_and_at_the_end() -> None:
    lines: list[str] = []
    now = 0.0
    progress = FrameLines(lines.append, lambda: now)
    for done in range(1, 101):
        now = float(done) / 10
        progress(done, 100, "repainting")
    assert lines == ["repainting: 51/100 frames, 5 s left", "repainting: 100/100 frames"]
    progress(1, 2, "other")
    assert len(lines) == 2
    now += 6
    progress(7, None, "other")
    assert lines[2:] == ["other: 7 frames"]
