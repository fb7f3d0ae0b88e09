"""The flow for real: a small bundle gives a small portrait another mouth."""

import csv
import inspect
import json
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from datasets.errors import UserError
from datasets.media import VideoWriter, probe, read_audio, read_frames, write_flac
from flows import lip_sync as module
from flows.support import cli
from models.latentsync.model import LatentSync
from tasks.lipsync.job import LipSyncJob, job_of
from tasks.lipsync.result import LipSyncResult
from tasks.lipsync.table import read_rows
from tests.support.real_bundle import make_real_bundle
from tests.support.small_models import shaken

SIZE = (240, 200)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, but with weights that make noise and speech show."""
    folder = make_real_bundle(tmp_path_factory.mktemp("bundle"))
    model = LatentSync.load(folder)
    shaken(model.unet)
    shaken(model.autoencoder)
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames at 20 per second."""
    path = tmp_path_factory.mktemp("video") / "portrait.mp4"
    image = cv2.resize(astronaut(), (240, 240))[: SIZE[1]]
    with VideoWriter(path, *SIZE, 20, crf=6) as writer:
        for index in range(12):
            writer.write(np.roll(image, index // 6, axis=0))
    return path


def speech(path: Path, seconds: float, level: float = 0.3) -> Path:
    rng = np.random.default_rng(1)
    write_flac(path, (level * rng.uniform(-1, 1, round(seconds * 16000))).astype(np.float32), 16000)
    return path


def said(
    bundle: Path, video: Path, audio: Path, output: Path, **options: Any
) -> module.LipSyncSummary:
    """The flow with its one step as a plain function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "repaint", module.repaint.fn)
        result = module.lip_sync.fn(
            str(video),
            str(audio),
            str(output),
            model=str(bundle),
            tracking_uri=f"sqlite:///{output.parent}/m.db",
            **({"steps": 1} | options),
        )
    return cast(module.LipSyncSummary, result)


def frames(path: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in read_frames(path, fps=None)]).astype(int)


def test_the_mouth_changes_and_nothing_else_does(
    bundle: Path, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = speech(tmp_path / "speech.flac", 0.5)
    result = said(bundle, portrait, audio, tmp_path / "out.mp4")
    output = tmp_path / "out.mp4"
    assert result["output"] == str(output)
    assert (result["frames"], result["faces_found"]) == (10, 10)
    assert result["notes"] == []
    about = probe(output)
    assert (about.width, about.height, about.fps) == (*SIZE, 20)
    heard, given = read_audio(output), read_audio(audio)
    assert np.corrcoef(heard[:7000], given[:7000])[0, 1] > 0.9
    changed = np.abs(frames(output) - frames(portrait)[:10]).mean(axis=(0, 3))
    assert changed.max() > 15
    rows, columns = np.nonzero(changed > 12)
    # The face is left of the middle in the upper half of the picture.
    assert rows.max() < 110
    assert columns.min() > 60
    assert columns.max() < 150
    around = np.delete(changed, np.s_[60:150], axis=1)
    assert around.mean() < 3
    lines = capsys.readouterr().out.splitlines()
    assert f"{output}: 10 frames, 10 of them with a new mouth, in " in lines[-1]


def test_seed_guidance_and_speech_decide_what_is_painted(
    bundle: Path, portrait: Path, tmp_path: Path
) -> None:
    audio = speech(tmp_path / "speech.flac", 0.2)
    quiet = speech(tmp_path / "quiet.flac", 0.2, level=0.003)
    made = {}
    for name, sound, options in (
        ("plain", audio, {}),
        ("again", audio, {}),
        ("seed", audio, {"seed": 3}),
        ("guidance", audio, {"guidance": 8.0}),
        ("speech", quiet, {}),
    ):
        said(bundle, portrait, sound, tmp_path / f"{name}.mp4", **options)
        made[name] = frames(tmp_path / f"{name}.mp4")
    assert np.array_equal(made["plain"], made["again"])
    for name in ("seed", "guidance", "speech"):
        assert np.abs(made[name] - made["plain"]).max() > 2, name


def test_what_was_odd_about_the_inputs_is_said(
    bundle: Path, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silence = speech(tmp_path / "silence.flac", 0.9, level=0.0)
    result = said(bundle, portrait, silence, tmp_path / "out.mp4")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    extended, silent = result["notes"]
    assert extended.startswith("0.6 s of video for 0.9 s of speech: played back and forth")
    assert silent.startswith("the speech is silent throughout (digital silence)")
    assert lines[-2:] == result["notes"]
    assert result["frames"] == 18


def test_mistakes_end_in_a_sentence_and_write_nothing(
    bundle: Path, portrait: Path, tmp_path: Path
) -> None:
    audio, output = speech(tmp_path / "speech.flac", 0.2), tmp_path / "out.mp4"
    with pytest.raises(UserError, match="there is no model folder"):
        said(tmp_path / "nowhere", portrait, audio, output)
    with pytest.raises(UserError, match="--steps must be between 1 and 500, got 0"):
        said(bundle, portrait, audio, output, steps=0)
    assert not output.exists()


JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "options": {"face": "2", "length": "keep", "steps": 7, "tone_map": True, "match": False},
    "parts": {"begin_s": 1.5, "end_s": 3.0, "audio_begin_s": 0.5, "crf": 30, "codec": "hevc"},
    "segments": {
        "audio": "",
        "segments": [
            {"begin_s": 1.0, "end_s": 2.0, "audio": "ä b.wav", "face": "1"},
            {"begin_s": 2.0, "audio": "c.wav", "guidance": 2.5, "silence": "original"},
        ],
    },
}
PLACES = {"video": "my in.mp4", "audio": "a.wav", "output": "out.mp4"}


def as_options(values: dict[str, Any]) -> list[str]:
    """A job as a command line."""
    words = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list):
            words += [word for each in value for word in (flag, json.dumps(each))]
        elif value != "":
            words += [flag, str(value)]
    return words


def as_table(path: Path, values: dict[str, Any]) -> Path:
    """A job as the only row of a table."""
    if path.suffix == ".jsonl":
        path.write_text(json.dumps(values) + "\n", encoding="utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*values])
        writer.writeheader()
        cells = {
            name: json.dumps(each) if isinstance(each, list) else each
            for name, each in values.items()
        }
        writer.writerow(cells)
    return path


@pytest.mark.parametrize("name", JOBS)
def test_all_views_give_the_same_job(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = PLACES | JOBS[name]
    done: list[LipSyncJob] = []

    def take(job: LipSyncJob, *_: Any) -> LipSyncResult:
        done.append(job)
        return LipSyncResult(Path(job.output), 1, 1, 0.0, np.zeros(1))

    monkeypatch.setattr(module, "repaint", take)
    monkeypatch.setattr(module, "resolve_model", lambda *_: tmp_path)
    monkeypatch.setattr(module, "bundle_licence", lambda _: "")
    file = tmp_path / "job.json"
    file.write_text(json.dumps(values | {"model": "x"}), encoding="utf-8")

    def command(*words: str) -> None:
        given = cli.with_file(module.lip_sync, cli.parse(module.lip_sync, words))
        # As Prefect's server and deployments get them.
        sent = json.loads(json.dumps(given))
        module.lip_sync.fn(**module.lip_sync.validate_parameters(sent))

    command(*as_options(values))
    places = [str(values[name]) for name in PLACES if values[name]]
    if len(places) == len(PLACES):
        command(*places, *as_options(JOBS[name]))
    command("--job", str(file))
    module.lip_sync.fn(**values)
    for kind in (".csv", ".jsonl"):
        (row,) = read_rows(as_table(tmp_path / f"jobs{kind}", values), tmp_path, {})
        assert row.job is not None, row.mistake
        done.append(row.job)
    expected = job_of(values)
    assert len(done) >= 5
    assert all(job == expected for job in done)


def test_what_is_given_beside_a_file_counts_more(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(PLACES | {"steps": 9, "model": "mine"}), encoding="utf-8")
    words = ["--job", str(file), "--steps", "20", "--output", "other.mp4"]
    given = cli.with_file(module.lip_sync, cli.parse(module.lip_sync, words))
    assert given == PLACES | {"steps": 20, "model": "mine", "output": "other.mp4"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"video": "v.mp4", "lenght": 1}', "there is no option 'lenght': did you mean 'length'?"),
        ('{"video": "v.mp4", "audio": "a.wav"}', "does not say output: add it there"),
        ('{"job": "other.json"}', "cannot name another one"),
        ("[1]", "must hold a JSON object, see --schema, got [1]"),
        ("{", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_job_ends_in_a_sentence(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert module.main(["--job", str(file)]) == 2
    error = capsys.readouterr().err
    assert (error.count("\n"), said in error) == (1, True), error


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    parameters = inspect.signature(module.lip_sync.fn).parameters
    assert set(schema["properties"]) == set(parameters)


def test_help_says_how_long_the_output_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(module.lip_sync, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "a longer video is cut, a shorter one runs back and forth" in text
