"""What a job may be, and the sentences for what it may not."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datasets.errors import UserError
from tasks.lipsync.job import (
    LipSyncJob,
    Segment,
    check_outputs,
    job_of,
    job_schema,
)

PLACES = {"video": "in.mp4", "audio": "a.wav", "output": "out.mp4"}
TWO = [
    {"begin_s": 1, "end_s": 2, "audio": "b.wav", "face": 2},
    {"begin_s": 3, "silence": "closed", "steps": 7},
]


def job(**options: Any) -> LipSyncJob:
    return job_of(PLACES | options)


def test_text_and_numbers_give_the_same_job() -> None:
    given: dict[str, Any] = {"face": 2, "steps": 5, "fps": 25, "tone_map": True, "segments": TWO}
    text = {name: str(value) for name, value in given.items()} | {"segments": json.dumps(TWO)}
    assert job(**given) == job(**text)
    assert job(**given).segments == (
        Segment(1.0, 2.0, "b.wav", face="2"),
        Segment(3.0, silence="closed", steps=7),
    )


def test_a_segment_takes_from_the_job_what_it_does_not_say() -> None:
    first, second = job(face="largest", segments=TWO, quality="draft", seed=3).turns
    assert first == Segment(1.0, 2.0, "b.wav", 0.0, None, "2", "model", 5, 1.5, 3)
    assert second == Segment(3.0, None, "a.wav", 0.0, None, "largest", "closed", 7, 1.5, 3)
    assert job(segments=TWO).files == ("in.mp4", "b.wav", "a.wav")


def test_without_segments_one_turn_is_the_whole_job() -> None:
    whole = job(begin_s=2, audio_begin_s=1, audio_end_s=4, steps=9)
    assert whole.turns == (Segment(2.0, None, "a.wav", 1.0, 4.0, "auto", "model", 9, 1.5, 1247),)


@pytest.mark.parametrize(("quality", "steps"), [("exact", 20), ("balanced", 10), ("draft", 5)])
def test_the_quality_decides_the_steps_unless_they_are_given(quality: str, steps: int) -> None:
    assert job(quality=quality).sampler_steps == steps
    assert job(quality=quality, steps=3).sampler_steps == 3


def test_a_sampler_that_is_given_counts_more_than_the_quality() -> None:
    assert job().sampler_name == "ddim"
    assert job(quality="draft", sampler="unipc").sampler_name == "unipc"
    with pytest.raises(UserError, match="--sampler must be one of ddim, dpm-solver"):
        job(sampler="euler")
    assert job(reuse="3").reuse == 3
    with pytest.raises(UserError, match="--reuse must be between 1 and 10, got 11"):
        job(reuse=11)


def over(*segments: dict[str, Any]) -> dict[str, Any]:
    return {"segments": list(segments)}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"lenght": "keep"}, "there is no option 'lenght': did you mean 'length'? the"),
    "unknown in a segment": (
        over({"face": "2"}, {"begin": 1}),
        "segment 2: there is no option 'begin': did you mean 'begin_s'?",
    ),
    "no number": ({"steps": "many"}, "steps must be a whole number, got 'many'"),
    "no number in a segment": (over({"begin_s": "x"}), "segment 1: begin_s must be a number, got"),
    "no flag": ({"tone_map": "perhaps"}, "tone_map must be true or false, got 'perhaps'"),
    "no list": ({"segments": 3}, "segments must be a list, got 3"),
    "no object": ({"segments": [3]}, "segment 1: segments must be an object"),
    "no JSON": ({"segments": "1-2"}, "segments must be JSON such as"),
    "no video": ({"video": ""}, "the job has no video: give video"),
    "no output": ({"output": ""}, "the job has no output"),
    "no speech": ({"audio": ""}, "nothing says what is spoken: give audio"),
    "no speech in one": (
        {"audio": ""} | over({"audio": "b.wav", "end_s": 1}, {"begin_s": 2}),
        "segment 2: nothing says what is spoken",
    ),
    "overlap": (
        over({"begin_s": 0, "end_s": 5}, {"begin_s": 4, "end_s": 8}),
        "segments 1 (0 s to 5 s) and 2 (4 s to 8 s) overlap, and both are for the face 'auto'",
    ),
    "same begin": (over({}, {"end_s": 4}), "segments 1 (0 s to the end) and 2 (0 s to 4 s)"),
    "all overlaps": (over({"face": "all"}, {"face": "1"}), "overlap"),
    "outside of the range": (
        {"begin_s": 2, "end_s": 6} | over({"begin_s": 1, "end_s": 3}),
        "segment 1: 1 s to 3 s is not within the range of the job, 2 s to 6 s",
    ),
    "past the range": (
        {"end_s": 6} | over({"begin_s": 5, "end_s": 7}),
        "segment 1: 5 s to 7 s is not within the range",
    ),
    "backwards": ({"begin_s": 5, "end_s": 4}, "the range must end after it begins, got begin_s 5"),
    "speech backwards": (
        over({"audio_begin_s": 2, "audio_end_s": 2}),
        "segment 1: its speech must end after it begins",
    ),
    "negative": ({"begin_s": -1}, "the range must begin at 0 s or later, got begin_s -1"),
    "no face": ({"face": "left"}, "--face must be auto, largest"),
    "no face in a segment": (over({"face": "left"}), "segment 1: --face must be auto"),
    "a box inside out": ({"face": "9,9,1,1@2"}, "--face must be auto"),
    "a point too late": (
        {"face": "3,4@9", "end_s": 5},
        "--face 3,4@9: the job uses the video from 0 s to 5 s, choose a moment in it",
    ),
    "length": ({"length": "twice"}, "--length must be one of auto, cut"),
    "length with segments": (
        {"length": "loop"} | over({}),
        "--length loop does not go with segments",
    ),
    "part with segments": ({"audio_end_s": 2} | over({}), "do not go with segments"),
    "silence": ({"silence": "off"}, "silence must be one of model, closed, original, got 'off'"),
    "quality": ({"quality": "best"}, "quality must be one of exact, balanced, draft, got 'best'"),
    "steps": ({"steps": 0}, "--steps must be between 1 and 500, got 0"),
    "steps of a segment": (over({"steps": 501}), "segment 1: --steps must be between 1 and 500"),
    "guidance": ({"guidance": 0.5}, "--guidance must be between 1 and 20, got 0.5"),
    "fps": ({"fps": 500}, "--fps must be between 1 and 120, got 500"),
    "reference": ({"reference": "none"}, "--reference must be"),
    "occlusion": ({"occlusion": "no"}, "--occlusion must be"),
    "codec": ({"codec": "av1"}, "codec must be one of h264, hevc, vp9, prores, got 'av1'"),
    "crf": ({"crf": 60}, "crf must be between 0 and 51, got 60"),
    "bits": ({"bits": 12}, "bits must be 8 or 10, got 12"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name: str) -> None:
    given, said = MISTAKES[name]
    with pytest.raises(UserError) as error:
        job_of(PLACES | given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_touches_does_not_overlap() -> None:
    both = over({"begin_s": 2, "end_s": 3}, {"begin_s": 0, "end_s": 2})
    assert len(job(**both).turns) == 2
    beside = over({"face": "1"}, {"face": "2"})
    assert len(job(**beside).turns) == 2


def test_a_preview_needs_no_speech() -> None:
    assert job_of({"video": "v.mp4", "output": "o.mp4"}, needs_speech=False).files == ("v.mp4",)


def test_the_schema_explains_every_option_and_takes_what_is_taken() -> None:
    schema = job_schema()
    for kind, about in ((LipSyncJob, schema), (Segment, schema["$defs"]["Segment"])):
        assert set(about["properties"]) == {each.name for each in fields(kind)}
        assert all(len(each["description"]) > 5 for each in about["properties"].values())
        assert about["additionalProperties"] is False
    jsonschema.validate(PLACES | {"segments": [{"begin_s": 1, "face": "2"}], "fps": 25}, schema)
    for wrong in ({"lenght": "keep"}, {"steps": "many"}, over({"begin": 1})):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(PLACES | wrong, schema)
    with pytest.raises(jsonschema.ValidationError, match="'output' is a required property"):
        jsonschema.validate({"video": "in.mp4"}, schema)


def test_no_job_writes_what_another_reads_or_writes(tmp_path: Path) -> None:
    def named(video: str, output: str) -> LipSyncJob:
        return job_of({"video": video, "audio": "a.wav", "output": output})

    check_outputs([("row 1", named("a.mp4", "b.mp4")), ("row 2", named("a.mp4", "c.mp4"))])
    with pytest.raises(UserError, match="row 1 and row 2 write the same output"):
        check_outputs([("row 1", named("a.mp4", "b.mp4")), ("row 2", named("a.mp4", "./b.mp4"))])
    with pytest.raises(UserError, match=r"the output a.mp4 of row 1 is read by row 2"):
        check_outputs([("row 1", named("c.mp4", "a.mp4")), ("row 2", named("a.mp4", "d.mp4"))])
