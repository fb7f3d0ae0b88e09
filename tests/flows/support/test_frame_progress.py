from flows.support.frame_progress import Progress


def test_lines_come_every_few_seconds_and_at_the_end() -> None:
    lines: list[str] = []
    now = 0.0
    progress = Progress(lines.append, lambda: now)
    for done in range(1, 101):
        now = float(done) / 10
        progress("repainting", done, 100)
    assert lines == ["repainting: 51/100 frames, 5 s left", "repainting: 100/100 frames"]
    progress("other", 1, 2)
    assert len(lines) == 2
