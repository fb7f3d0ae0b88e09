from pathlib import Path

import numpy as np
import pytest

from flows import cli
from flows import lip_sync as module
from tasks.lipsync_video import LipSyncResult


def test_the_result_lines_say_what_was_odd_about_the_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = LipSyncResult(
        tmp_path / "o.mp4", 200, 180, 3.0, np.zeros(200), 6.0, 8.0, True, float("-inf")
    )
    monkeypatch.setattr(module, "resolve", lambda *_: tmp_path)
    monkeypatch.setattr(module, "repaint", lambda *_: made)
    result = module.lip_sync.fn("v", "a", "o", tracking_uri=f"sqlite:///{tmp_path}/m.db")
    lines = capsys.readouterr().out.splitlines()
    assert "200 frames, 180 of them with a new mouth" in lines[0]
    assert lines[1].strip().startswith("6.0 s of video for 8.0 s of speech: played forth and back")
    assert lines[2].strip().startswith("the speech is silent throughout")
    assert result["notes"] == [line.strip() for line in lines[1:]]


def test_help_says_how_long_the_output_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(module.lip_sync, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "a shorter one is played forth and back until the speech ends" in text
