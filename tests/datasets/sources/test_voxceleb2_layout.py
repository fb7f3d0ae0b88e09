"""VoxCeleb2's own files: both spellings of the table, and boxes."""

from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from datasets.errors import UserError
from datasets.sources.voxceleb2 import _read
from datasets.sources.voxceleb2_layout import BoxTrack, Speaker, parse_boxes, parse_speakers


def text_of(path: Path) -> str:
    return _read(LocalFileSystem(), str(path.parent), path.name)


def boxes_of(path: Path) -> BoxTrack:
    return parse_boxes(text_of(path), str(path))


def speakers_of(path: Path) -> dict[str, Speaker]:
    return parse_speakers(text_of(path), str(path))


@pytest.mark.parametrize("name", ["vox2_meta.plain.csv", "vox2_meta.spaced_bom.csv"])
def test_both_spellings_of_the_table(shared: Path, name: str) -> None:
    speakers = speakers_of(shared / "voxceleb2" / name)
    assert len(speakers) == 6114
    splits = [speaker.split for speaker in speakers.values()]
    assert (splits.count("dev"), splits.count("test")) == (5994, 120)
    assert speakers["id00017"].split == "test"


def test_both_spellings_say_the_same(shared: Path) -> None:
    folder = shared / "voxceleb2"
    plain = speakers_of(folder / "vox2_meta.plain.csv")
    assert plain == speakers_of(folder / "vox2_meta.spaced_bom.csv")


def test_box_fragments(shared: Path) -> None:
    folder = shared / "voxceleb2" / "txt_fragments"
    track = boxes_of(folder / "vox2_id00017_7t6lfzvVaTM.fragment.txt")
    assert (track.speaker, track.video_id, track.offset) == ("id00017", "7t6lfzvVaTM", 1)
    assert (track.fv_confidence, track.asd_confidence) == (16.647, 4.465)
    assert track.fractional
    assert track.start_s == pytest.approx(9.8)
    assert track.boxes[0].x == pytest.approx(0.392)


def test_pixel_boxes_of_voxceleb1(shared: Path) -> None:
    folder = shared / "voxceleb2" / "txt_fragments"
    track = boxes_of(folder / "vox1_id10661_lSI69L4DidQ.fragment.txt")
    assert track.speaker == "id10661"
    assert not track.fractional


def test_a_whole_box_file(shared: Path) -> None:
    path = next((shared / "voxceleb2" / "SYNTHETIC_txt").rglob("*.txt"))
    frames = [box.frame for box in boxes_of(path).boxes]
    assert frames == list(range(frames[0], frames[-1] + 1))


def test_other_text_is_no_box_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello\n")
    with pytest.raises(UserError, match="not a VoxCeleb box file"):
        boxes_of(path)
    path.write_text("FRAME \tX\n000001 \tleft \n")
    with pytest.raises(UserError, match="line 2"):
        boxes_of(path)
    path.write_text(
        "Identity : \tid1\nReference : \tv\nOffset : \tx\n\nFRAME \n1 \t0 \t0 \t1 \t1\n"
    )
    with pytest.raises(UserError, match="header"):
        boxes_of(path)


def test_another_table_is_said(tmp_path: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_text("name,age\nx,1\n")
    with pytest.raises(UserError, match="voxceleb2id"):
        speakers_of(path)
