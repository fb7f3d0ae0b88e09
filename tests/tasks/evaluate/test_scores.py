"""What is compared with what in an evaluation, with judges that only note what they were given."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from datasets.faces.landmarks import Face
from tasks.evaluate.clips import ChosenClip, open_clip
from tasks.evaluate.metrics import LIPS
from tasks.evaluate.mouths import MIN_SPEECH
from tasks.registry.metric import NO_FACE
from tasks.sync.networks import SyncCurve
from tasks.sync.signals import OffsetScore
from tests.support.collected import Collected, bare_scores
from tests.support.counting_store import SIDE, CountingStore

CLIP = ChosenClip("clip0", "speaker", 50, "clip1", 48)
KINDS = ("real", "reconstruction", "cross")


class Judge:
    """Distances depend on the first frame and the first sample."""

    min_frames = 31

    def __init__(self, label: str, share: float = 0.5) -> None:
        self.label, self.share = label, share
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        self.given.append((frames, audio))
        distances = np.full(31, 10.0)
        distances[(len(self.given) + 15) % 31] = 4.0
        return SyncCurve(distances, self.share * len(self.given), 0.1 * len(self.given))


class Scorer:
    name = "scorer"

    def __init__(self) -> None:
        self.given: list[tuple[int, np.ndarray]] = []

    def measure(self, landmarks: np.ndarray, audio: np.ndarray) -> OffsetScore:
        self.given.append((len(landmarks), audio))
        return OffsetScore(float(len(self.given)), 2.0 * len(self.given))


class Detector:
    """Sees a face in pictures that are not black; its lips are as far down as it is bright."""

    def reset(self) -> None:
        return

    def detect(self, image: np.ndarray) -> list[Face]:
        level = float(image.mean())
        if level == 0:
            return []
        points = np.full((478, 2), 160.0, np.float32)
        points[33], points[263] = (110, 100), (210, 100)
        points[LIPS, 1] = 200 + level
        return [Face((0.0, 0.0, 320.0, 320.0), points)]


@pytest.fixture
def scores() -> Collected:
    made = bare_scores(Judge("judge"), Judge("classifier", 0.25), Scorer(), Detector(), 8)
    return Collected(made, " NOTE")


def frames(count: int, level: int) -> np.ndarray:
    return np.full((count, SIDE, SIDE, 3), level, np.uint8)


def row(scores: Collected, reconstruction: np.ndarray, cross: np.ndarray) -> dict[str, float]:
    clip = open_clip(CountingStore(60, 60, level=100), CLIP)
    found = scores.add(clip, reconstruction, cross)
    assert found.scores("clip0")["values"].keys() == scores.rows[-1].keys()
    return scores.rows[-1]


def test_each_video_is_judged_with_the_sound_that_it_shows(scores: Collected) -> None:
    row(scores, frames(50, 110), frames(48, 120))
    own, foreign = CountingStore(60, 60).audio("clip0"), CountingStore(60, 60).audio("clip1")
    videos = [(50, 100), (50, 110), (48, 120)]
    # The judge also hears the clip's own speech with the foreign video.
    for judge, expected in (
        (scores.scores.judge, [*videos, videos[2]]),
        (scores.scores.classifier, videos),
    ):
        given: Sequence[tuple[np.ndarray, np.ndarray]] = judge.given  # type: ignore[attr-defined]
        assert [(len(video), int(video[0, 0, 0, 0])) for video, _ in given] == expected
        assert np.array_equal(given[0][1], own)
        assert np.array_equal(given[1][1], own)
        assert np.array_equal(given[2][1], foreign[: 48 * 640])
    (_, leaked) = scores.scores.judge.given[3]  # type: ignore[attr-defined]
    assert np.array_equal(leaked, own[: 48 * 640])
    heard = scores.scores.scorer.given  # type: ignore[attr-defined]
    assert [count for count, _ in heard] == [50, 50, 48]
    assert np.array_equal(heard[2][1], foreign[: 48 * 640])
    assert np.array_equal(heard[0][1], own)


def test_numbers_are_those_of_judge_classifier_and_scorer(scores: Collected) -> None:
    found = row(scores, frames(50, 110), frames(48, 120))
    for number, kind in enumerate(KINDS, 1):
        assert found[f"sync_c_{kind}"] == 6
        assert found[f"sync_d_{kind}"] == 4
        assert found[f"sync_offset_{kind}"] == number
        assert found[f"in_sync_share_{kind}"] == 0.25 * number
        assert found[f"sync_accuracy_{kind}"] == pytest.approx(0.1 * number)
        assert found[f"mouth_offset_{kind}"] == number
        assert found[f"mouth_z_{kind}"] == 2 * number
    metrics = scores.metrics()
    # Of the cross videos, unless the name says otherwise.
    assert metrics["sync_offset"]["value"] == 3
    assert metrics["in_sync_share_real"]["value"] == 0.25
    assert metrics["mouth_offset"]["value"] == 3
    assert metrics["mouth_z_real"]["value"] == 2
    assert "classifier, called in sync, cross audio NOTE" in metrics["in_sync_share"]["label"]
    assert metrics["sync_c"]["label"] == "judge, cross audio NOTE"


def test_pictures_are_compared_where_they_were_repainted(scores: Collected) -> None:
    """An error in the lower half only, where the mask lies, and one of the kept corner."""
    repainted = frames(50, 100)
    repainted[:, SIDE // 2 : SIDE - 6, SIDE // 4 : SIDE - SIDE // 4] += 20
    found = row(scores, repainted, frames(48, 100))
    assert found["ssim_mouth"] < found["ssim"] < 1
    assert 20 * math.log10(255 / 20) < found["psnr_db"] < 20 * math.log10(255 / 20) + 6
    area = (SIDE // 2 - 6) * SIDE // 2 / SIDE**2
    assert found["lpips"] == pytest.approx(area * 20 / 127.5, rel=1e-3)
    corner = frames(50, 100)
    corner[:, :4, :4] += 50
    found = row(scores, corner, frames(48, 100))
    assert found["psnr_db"] == math.inf
    assert scores.reasons["psnr_db"] == "the pictures are equal"


def test_lips_are_compared_with_the_real_ones_of_the_same_frames(scores: Collected) -> None:
    found = row(scores, frames(50, 110), frames(48, 125))
    # Eyes are 100 apart, lips lie as much lower as the picture is brighter.
    assert found["lmd"] == pytest.approx(10, abs=0.2)
    assert found["lmd_cross"] == pytest.approx(25, abs=0.2)
    assert found["faces_found"] == 1


def test_half_of_the_frames_must_show_a_face(scores: Collected) -> None:
    half, less = frames(50, 110), frames(48, 120)
    half[25:] = 0
    less[23:] = 0
    found = row(scores, half, less)
    assert found["faces_found"] == pytest.approx(23 / 48)
    assert found["lmd"] == pytest.approx(10, abs=0.2)
    assert math.isnan(found["lmd_cross"])
    assert math.isnan(found["mouth_z_cross"])
    assert found["mouth_z_reconstruction"] == 4
    assert scores.reasons["lmd_cross"].startswith(f"{NO_FACE} 48% of the frames")
    metrics = scores.metrics()
    assert metrics["lmd_cross"]["value"] is None
    assert metrics["lmd_cross"]["reason"] == scores.reasons["lmd_cross"]


def test_speech_that_is_too_short_has_no_course(scores: Collected) -> None:
    clip = ChosenClip("clip0", "speaker", MIN_SPEECH, "clip1", MIN_SPEECH - 1)
    store = CountingStore(60, 60, level=100)
    scores.add(open_clip(store, clip), frames(MIN_SPEECH, 110), frames(MIN_SPEECH - 1, 120))
    assert scores.rows[0]["mouth_z_reconstruction"] == 4
    assert math.isnan(scores.rows[0]["mouth_z_cross"])
    assert "too short" in scores.reasons["mouth_z_cross"]


def test_sets_have_equally_many_frames_and_windows_of_every_clip(scores: Collected) -> None:
    row(scores, frames(50, 110), frames(48, 120))
    extractors = scores.scores.extractors
    real, fake = extractors["fid"].given  # type: ignore[attr-defined]
    assert len(real) == len(fake) == 8
    assert {int(level) for level in real.flatten()} == {100}
    assert {int(level) for level in fake.flatten()} == {120}
    for name in ("fvd", "motion"):
        real, fake = extractors[name].given  # type: ignore[attr-defined]
        assert real.shape == fake.shape == (2, 16, SIDE, SIDE, 3)
        assert {int(level) for level in fake.flatten()} == {120}


def test_means_and_medians_are_over_the_clips(scores: Collected) -> None:
    names = row(scores, frames(50, 110), frames(48, 120))
    first = scores.summary.found[0]
    for value in (1.0, -2.0, 9.0, math.nan):
        scores.summary.add(f"{value}", replace(first, values=dict.fromkeys(names, value)))
    del scores.summary.found[0], scores.summary.speakers[0]
    metrics = scores.metrics()
    for name in ("sync_c", "sync_d", "ssim", "psnr_db", "lmd", "faces_found"):
        assert metrics[name]["value"] == pytest.approx(8 / 3), name
        assert metrics[name]["n"] == 3
    for name in ("mouth_z", "mouth_z_real"):
        assert metrics[name]["value"] == 1.0, name
    # Offsets of either sign must not cancel.
    for name in ("sync_offset", "mouth_offset"):
        assert metrics[name]["value"] == 2.0, name
    assert -2 <= metrics["sync_c"]["low"] < 8 / 3 < metrics["sync_c"]["high"] <= 9


def test_lips_follow_if_the_offset_is_small_and_stands_out(scores: Collected) -> None:
    class Given(Scorer):
        def measure(self, landmarks: np.ndarray, audio: np.ndarray) -> OffsetScore:
            return OffsetScore(*answers.pop(0))

    scores.scores.scorer = Given()  # type: ignore[assignment]
    # Of the real video, the reconstruction and the cross video of four clips.
    crosses = [(-2.0, 3.0), (2.1, 9.0), (0.0, 2.9), (0.0, 5.0)]
    answers = [each for cross in crosses for each in ((1.0, 4.0), (9.0, 9.0), cross)]
    for _ in crosses:
        row(scores, frames(50, 110), frames(48, 120))
    assert [each["follows_cross"] for each in scores.rows] == [1, 0, 0, 1]
    metrics = scores.metrics()
    assert (metrics["follows"]["value"], metrics["follows_real"]["value"]) == (0.5, 1.0)


def test_models_side_by_side_share_what_is_known_of_the_real_video(scores: Collected) -> None:
    clip = open_clip(CountingStore(60, 60, level=100), CLIP)
    other = Collected(scores.scores, hear_leaks=False)
    mine = scores.add(clip, frames(50, 110), frames(48, 120))
    before = len(scores.scores.judge.given)  # type: ignore[attr-defined]
    theirs = other.add(clip, frames(50, 130), frames(48, 140))
    # Its two videos, and not the real one again.
    assert len(scores.scores.judge.given) == before + 2  # type: ignore[attr-defined]
    assert math.isnan(other.rows[0]["leak_sync_c"])
    assert other.reasons["leak_sync_d"] == "only the model's own videos are judged so"
    assert mine.fake["fid"][0, 0] == 120
    assert theirs.fake["fid"][0, 0] == 140
    assert theirs.real["fid"] is mine.real["fid"]
    assert other.rows[0]["lmd"] == pytest.approx(30, abs=0.2)
    for name in ("sync_c_real", "mouth_z_real", "lmd"):
        assert scores.rows[0][name] != pytest.approx(other.rows[0]["lmd"])


def test_flicker_is_what_changes_to_and_fro_in_the_repainted_part(scores: Collected) -> None:
    clip = open_clip(CountingStore(60, 60, level=100), CLIP)
    cross = frames(48, 120)
    # Nothing moves in the real video, so there is nothing to compare with.
    scores.add(clip, frames(50, 110), cross)
    assert math.isnan(scores.rows[0]["flicker"])
    assert scores.metrics()["flicker"]["reason"] == "nothing moves in the real video"
    moving = frames(50, 100)
    moving[::2, SIDE // 2 :] += 4
    clip = replace(clip, frames=moving)
    even, restless, outside = frames(50, 100), moving.copy(), moving.copy()
    even += np.arange(50, dtype=np.uint8)[:, None, None, None]
    restless[::2, SIDE // 2 :] += 4
    outside[::2, 0] = 0
    for video, expected in ((moving, 1), (restless, 2), (even, 0), (outside, 1)):
        assert scores.scores.measure(clip, video, cross).values["flicker"] == expected


def test_the_identity_is_the_distance_to_the_calmest_frame(scores: Collected) -> None:
    class Embedding:
        """The face's colour."""

        label = "colours"

        def __call__(self, pictures: np.ndarray, points: np.ndarray) -> np.ndarray:
            assert points.shape == (len(pictures), 5, 2)
            colours = pictures[:, SIDE // 2, SIDE // 2].astype(float)
            return colours / np.linalg.norm(colours, axis=1, keepdims=True)

    plain = row(scores, frames(50, 110), frames(48, 120))
    assert math.isnan(plain["identity_cross"])
    assert "--identity-weights sface" in scores.metrics()["identity"]["reason"]
    scores.scores.identity = Embedding()  # type: ignore[assignment]
    clip = open_clip(CountingStore(60, 60, level=100), CLIP)
    red, real = frames(48, 0), frames(50, 0)
    red[..., 0], real[..., 1] = 200, 200
    # The calmest frame, the 4th, is red.
    real[3] = (200, 0, 0)
    landmarks = clip.landmarks.copy()
    landmarks[:, 13, 1] -= 100
    landmarks[3, 13, 1] += 100
    clip = replace(clip, frames=real, landmarks=landmarks)
    scores.scores.truth.clear()
    found = scores.scores.measure(clip, real, red)
    assert found.values["identity_cross"] == pytest.approx(0)
    shown = np.unique(np.linspace(0, 49, 16).astype(int))
    assert found.values["identity_real"] == pytest.approx(np.mean(shown != 3))
    faceless = scores.scores.measure(clip, real, frames(48, 0))
    assert faceless.reasons["identity_cross"].startswith(f"{NO_FACE} 0%")
    summed = Collected(scores.scores)
    summed.add(clip, real, red)
    label = summed.metrics()["identity"]["label"]
    assert label == "colours, cosine distance to the clip's calmest frame, cross audio"
