"""All numbers of an evaluation, gathered clip by clip.

What needs no comparison of sets is measured per clip and averaged; FID and FVD compare features
of real and of generated faces. Several models are measured side by side, and what is known about
the real videos is shared.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.faces.landmarks import FaceDetector, mouth_opening
from datasets.media import SAMPLES_PER_FRAME
from models.judges.extractors import FeatureExtractor, image_extractor, video_extractor
from models.judges.frechet import GaussianStatistics, few_samples, frechet_distance
from models.judges.motion import motion_extractor, polynomial_mmd
from models.latentsync.mask import face_mask
from tasks.evaluate.clips import ClipList, Kind, OpenClip
from tasks.evaluate.closure import CLOSED, Closure, measure_closure
from tasks.evaluate.intervals import with_interval
from tasks.evaluate.judge import load_sync_judge
from tasks.evaluate.leakage import (
    MIN_FACES,
    MOVES,
    Mouth,
    correlation,
    moving_share,
    no_face,
    opening_in_silence,
)
from tasks.evaluate.metrics import ClipScores, landmark_distance, landmarks_of, psnr
from tasks.evaluate.ssim import ssim
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.metric import NO_SILENCE, Metric, metric
from tasks.sync.mouth_audio import MouthAudioScorer
from tasks.sync.networks import SyncCurve, load_own_syncnet, load_window_syncnet
from tasks.weights.by_name import weight_file
from tasks.weights.lpips import load_lpips, lpips
from tasks.weights.trust import trusted_digests

WINDOW = 16
"""Frames per video that FVD looks at."""
MIN_SPEECH = 46
"""Frames of speech below which its course means nothing: the search alone spans 31."""


FOLLOWS_OFFSET, FOLLOWS_Z = 2.0, 3.0
"""Lips follow the speech if the offset is at most so many frames and stands out so much. Videos
whose lips have nothing to do with the speech reach both in up to 3 % of clips
(`python -m benchmarks.gate`)."""
SMALL_FEATURES = 512
"""Up to so many dimensions a Frechet distance takes milliseconds."""


Distance = Callable[[GaussianStatistics, GaussianStatistics], float]


class _Frechet:
    """Features of real and generated faces, and their distance."""

    def __init__(self, extractor: FeatureExtractor, limit: int) -> None:
        self.extractor, self.limit = extractor, limit
        self.real: list[np.ndarray] = []
        self.fake: list[np.ndarray] = []
        self.known: dict[str, np.ndarray] = {}
        """Features of the real pictures of the last clip."""

    def sibling(self) -> "_Frechet":
        """One for another model's pictures of the same clips."""
        other = copy.copy(self)
        other.real, other.fake = [], []
        return other

    def add(self, clip: str, real: np.ndarray, fake: np.ndarray) -> None:
        """Add equally many real and generated frames (n, h, w, 3) or windows (n, t, h, w, 3)."""
        if clip not in self.known:
            self.known.clear()
            self.known[clip] = _features(self.extractor, real)
        self.real.append(self.known[clip])
        self.fake.append(_features(self.extractor, fake))

    def distance(self, clips: np.ndarray, measure: Distance = frechet_distance) -> float:
        """The distance over clips given by their indices, which may repeat."""
        if sum(len(self.fake[each]) for each in clips) < 2:
            return math.nan
        sides = []
        for features in (self.real, self.fake):
            side = GaussianStatistics(self.extractor.dim)
            for each in clips:
                side.update(features[each])
            sides.append(side)
        return measure(*sides)

    def result(
        self,
        name: str,
        speakers: list[str],
        note: str,
        things: str,
        measure: Distance = frechet_distance,
    ) -> Metric:
        """The distance; `things` names what was compared, in the plural."""
        count = sum(len(each) for each in self.fake)
        label = self.extractor.label + note
        if measure is frechet_distance:
            label += few_samples(count, self.extractor.dim)
        if count < 2:
            reason = f"it needs 2 {things} or more on either side, these clips have {count}"
            return metric(math.nan, label, 0, reason)

        def statistic(clips: np.ndarray) -> float:
            return self.distance(clips, measure)

        found = metric(statistic(np.arange(len(self.fake))), label, count)
        small = self.extractor.dim <= SMALL_FEATURES
        return with_interval(found, name, speakers, statistic, 100 if small else 20)


def _features(extractor: FeatureExtractor, pictures: np.ndarray) -> np.ndarray:
    found = extractor(pictures)
    if isinstance(found, torch.Tensor):
        found = found.detach().cpu().numpy()
    return np.asarray(found, np.float64)


@dataclass(frozen=True)
class _Truth:
    """What is known about a real video with its own speech."""

    clip_id: str
    curve: SyncCurve
    verdict: SyncCurve
    landmarks: np.ndarray
    seen: float
    """Share of frames with a face."""


class Scores:
    """Measures one clip after another.

    Args:
        judge_bundle: bundle whose sync network judges if there is no syncnet_v2.
        config: configuration of the evaluation.
        device: device for the networks.
        tests: the frozen list.
        detector: finds the faces whose mouths are judged.

    Raises:
        UserError: a file of weights is missing.
        ModelFileError: it is damaged.
    """

    judges_leaks = True
    """Whether the judge also hears the input's own speech with the foreign video. Other models'
    videos are spared that: what a whole leak reaches is `sync_c_real`."""

    def __init__(
        self,
        judge_bundle: Path,
        config: EvaluationConfig,
        device: torch.device,
        tests: ClipList,
        detector: FaceDetector,
    ) -> None:
        def file(name: str) -> Path | None:
            return weight_file(name) if name else None

        self.judge = load_sync_judge(config.syncnet_weights, judge_bundle, device)
        # syncnet_v2 gives only distances: the bundle's own network says whether a window is in
        # sync.
        own = judge_bundle / "syncnet"
        self.classifier = self.judge
        if config.stable_syncnet_weights:
            self.classifier = load_window_syncnet(config.stable_syncnet_weights, device)
        elif config.syncnet_weights and own.is_dir():
            self.classifier = load_own_syncnet(own, device)
        trusted = trusted_digests(config.trust)
        inception, i3d = file(config.inception_weights), file(config.i3d_weights)
        self.fid = _Frechet(
            image_extractor(inception, device, trusted=trusted), config.image_frames
        )
        self.fvd = _Frechet(video_extractor(i3d, device, trusted=trusted), config.video_windows)
        self.motion = _Frechet(
            motion_extractor(file(config.videomae_weights), device), config.video_windows
        )
        self.lpips = load_lpips(config.lpips_weights, device, config.trust)
        self.device = device
        self.scorer = MouthAudioScorer()
        self.detector = detector
        self.count = len(tests.clips)
        self.note, self.cross = tests.note, tests.cross
        self.truth: list[_Truth] = []
        """That of the last clip."""
        self.rows: list[dict[str, float]] = []
        self.speakers: list[str] = []
        """Of each row."""
        self.reasons: dict[str, str] = {}
        """Reasons for missing numbers: those of the last clip, since they are usually all alike."""

    def sibling(self) -> "Scores":
        """Empty scores by the same judges, for another model's videos of the same clips."""
        other = copy.copy(self)
        other.rows, other.speakers, other.reasons = [], [], {}
        other.fid, other.fvd = self.fid.sibling(), self.fvd.sibling()
        other.motion = self.motion.sibling()
        other.judges_leaks = False
        return other

    def _about(self, clip: OpenClip) -> _Truth:
        """What is known about the clip itself; looked at once for all models."""
        name = clip.chosen.clip_id
        if not self.truth or self.truth[0].clip_id != name:
            curve = self.judge.curve(clip.frames, clip.speech)
            verdict = curve
            if self.classifier is not self.judge:
                verdict = self.classifier.curve(clip.frames, clip.speech)
            self.truth[:] = [
                _Truth(name, curve, verdict, *landmarks_of(clip.frames, self.detector))
            ]
        return self.truth[0]

    def add(
        self,
        clip: OpenClip,
        reconstruction: np.ndarray,
        cross: np.ndarray,
        silence: np.ndarray | None = None,
    ) -> ClipScores:
        """Measure one clip.

        Args:
            clip: the real frames and sound.
            reconstruction: uint8 (frames, R, R, 3), with the clip's own speech.
            cross: uint8 (cross_frames, R, R, 3), with another clip's speech.
            silence: uint8 (silent_frames, R, R, 3), generated from silence, if it was.

        Returns:
            The measurements of this clip, ready for JSON.
        """
        real, own, foreign = clip.frames, clip.speech, clip.driving
        row: dict[str, float] = {}
        truth = self._about(clip)
        pairs = {"reconstruction": (reconstruction, own), "cross": (cross, foreign)}
        curves = {name: self.judge.curve(*pair) for name, pair in pairs.items()}
        verdicts = curves
        if self.classifier is not self.judge:
            verdicts = {name: self.classifier.curve(*pair) for name, pair in pairs.items()}
        curves = {"real": truth.curve, **curves}
        verdicts = {"real": truth.verdict, **verdicts}
        pairs = {"real": (real, own), **pairs}
        for name, curve in curves.items():
            row[f"sync_c_{name}"], row[f"sync_d_{name}"] = curve.confidence, curve.distance
            row[f"sync_offset_{name}"] = curve.offset
            row[f"in_sync_share_{name}"] = verdicts[name].in_sync_share
            row[f"sync_accuracy_{name}"] = verdicts[name].accuracy
            frames = len(pairs[name][0])
            self._sync_reasons(row, name, min(frames, len(pairs[name][1]) // SAMPLES_PER_FRAME))
        self._pictures(row, real, reconstruction)
        faces = {
            "real": (truth.landmarks, truth.seen),
            "reconstruction": landmarks_of(reconstruction, self.detector),
            "cross": landmarks_of(cross, self.detector),
        }
        self._mouths(row, faces, own, foreign)
        mouths = {name: Mouth(mouth_opening(at), seen) for name, (at, seen) in faces.items()}
        if silence is not None:
            at, seen = landmarks_of(silence, self.detector)
            mouths["silence"] = Mouth(mouth_opening(at), seen)
        self._leaks(row, clip, mouths)
        self._leaked_sync(row, own, cross)
        self._closures(row, clip, mouths)
        self._sets(clip.chosen.clip_id, real, cross)
        self.rows.append(row)
        self.speakers.append(clip.chosen.speaker)
        distances = {name: curve.distances.tolist() for name, curve in curves.items()}
        values = {name: value if math.isfinite(value) else None for name, value in row.items()}
        return {"clip_id": clip.chosen.clip_id, "values": values, "distances": distances}

    def _sync_reasons(self, row: dict[str, float], kind: str, frames: int) -> None:
        """Why the sync networks found nothing for a clip of a given length."""
        judges = {
            "sync_c": self.judge,
            "sync_d": self.judge,
            "sync_offset": self.judge,
            "in_sync_share": self.classifier,
            "sync_accuracy": self.classifier,
        }
        for name, network in judges.items():
            if math.isfinite(row[f"{name}_{kind}"]):
                continue
            reason = f"{network.label} says of no window whether it is in sync"
            if frames < network.min_frames:
                reason = _too_short(frames, "the search over shifts of the sound")
                reason += f" needs {network.min_frames} frames or more"
            elif name == "sync_accuracy" and math.isfinite(row[f"in_sync_share_{kind}"]):
                reason = _too_short(frames, "no part of the sound is far enough from another")
            self.reasons[f"{name}_{kind}"] = reason

    def _pictures(self, row: dict[str, float], real: np.ndarray, fake: np.ndarray) -> None:
        repainted = face_mask(real.shape[1], "cpu")[0, 0].numpy() < 0.5
        whole, mouth = ssim(real, fake, repainted).mean(1)
        row["ssim"], row["ssim_mouth"] = float(whole), float(mouth)
        row["psnr_db"] = psnr(real, fake, repainted)
        if not math.isfinite(row["psnr_db"]):
            self.reasons["psnr_db"] = "the pictures are equal"
        row["lpips"] = float(lpips(self.lpips, real, fake, self.device).mean())

    def _mouths(
        self,
        row: dict[str, float],
        faces: Mapping[str, tuple[np.ndarray, float]],
        own: np.ndarray,
        foreign: np.ndarray,
    ) -> None:
        """What FaceMesh sees of the lips, and whether they follow the speech."""
        (truth, seen_real), (again, seen_again) = faces["real"], faces["reconstruction"]
        moved, seen_moved = faces["cross"]
        row["faces_found"] = min(seen_again, seen_moved)
        for name, landmarks, seen in (("lmd", again, seen_again), ("lmd_cross", moved, seen_moved)):
            row[name] = math.nan
            if min(seen_real, seen) >= MIN_FACES:
                row[name] = landmark_distance(truth[: len(landmarks)], landmarks)
            else:
                self.reasons[name] = no_face(min(seen_real, seen))
        pairs = {
            "real": (truth, seen_real, own),
            "reconstruction": (again, seen_again, own),
            "cross": (moved, seen_moved, foreign),
        }
        for name, (landmarks, seen, audio) in pairs.items():
            row[f"mouth_offset_{name}"] = row[f"mouth_z_{name}"] = math.nan
            row[f"follows_{name}"] = math.nan
            if seen >= MIN_FACES and len(landmarks) >= MIN_SPEECH:
                score = self.scorer.measure(landmarks, audio)
                row[f"mouth_offset_{name}"] = score.offset_frames
                row[f"mouth_z_{name}"] = score.confidence
                near = abs(score.offset_frames) <= FOLLOWS_OFFSET
                row[f"follows_{name}"] = float(near and score.confidence >= FOLLOWS_Z)
                continue
            reason = no_face(seen)
            if len(landmarks) < MIN_SPEECH:
                reason = _too_short(len(landmarks), "the course of the mouth's opening")
                reason += f" needs {MIN_SPEECH} frames or more"
            for number in ("mouth_offset", "mouth_z", "follows"):
                self.reasons[f"{number}_{name}"] = reason

    def _note(self, row: dict[str, float], name: str, value: float, reason: str) -> None:
        row[name] = value
        if reason:
            self.reasons[name] = reason

    def _leaks(self, row: dict[str, float], clip: OpenClip, mouths: Mapping[str, Mouth]) -> None:
        """How much of the input's own mouth is in the generated ones."""
        real, cross = mouths["real"], mouths["cross"]
        self._note(row, "leak_correlation", *correlation(cross, real))
        driver = Mouth(clip.driver_opening, 1.0)
        self._note(row, "leak_correlation_real", *correlation(driver, real))
        if "silence" in mouths:
            silent = mouths["silence"]
            again = mouths["reconstruction"]
            self._note(row, "leak_opening", *opening_in_silence(silent, again))
            self._note(row, "leak_moving", *moving_share(silent))
            return
        for name in ("leak_opening", "leak_moving"):
            row[name] = math.nan
            # Other clips' reasons say more.
            self.reasons.setdefault(name, NO_SILENCE)

    def _leaked_sync(self, row: dict[str, float], own: np.ndarray, cross: np.ndarray) -> None:
        """Whether lips under foreign speech look as if the clip's own speech were heard."""
        if not self.judges_leaks:
            row["leak_sync_c"] = row["leak_sync_d"] = math.nan
            for name in ("leak_sync_c", "leak_sync_d"):
                self.reasons[name] = "only the model's own videos are judged so"
            return
        curve = self.judge.curve(cross, own[: len(cross) * SAMPLES_PER_FRAME])
        row["leak_sync_c"], row["leak_sync_d"] = curve.confidence, curve.distance
        for name in ("leak_sync_c", "leak_sync_d"):
            if not math.isfinite(row[name]):
                reason = _too_short(len(cross), "the search over shifts of the sound")
                self.reasons[name] = f"{reason} needs {self.judge.min_frames} frames or more"

    def _closures(self, row: dict[str, float], clip: OpenClip, mouths: Mapping[str, Mouth]) -> None:
        """Whether lips close at p, b and m."""
        heard: dict[str, Kind] = {
            "real": "reconstruction",
            "reconstruction": "reconstruction",
            "cross": "cross",
        }
        for name, kind in heard.items():
            mouth = mouths[name]
            if mouth.seen < MIN_FACES:
                found = Closure(reason=no_face(mouth.seen))
            else:
                found = measure_closure(mouth.opening, clip.said(kind))
            self._note(row, f"closure_gap_{name}", found.gap, found.reason)
            self._note(row, f"closed_{name}", found.closed, found.reason)

    def _sets(self, clip: str, real: np.ndarray, fake: np.ndarray) -> None:
        """Add equally many real and generated frames and windows of this clip."""
        real = real[: len(fake)]
        frames = max(1, self.fid.limit // self.count)
        chosen = np.unique(np.linspace(0, len(fake) - 1, min(frames, len(fake))).astype(int))
        self.fid.add(clip, real[chosen], fake[chosen])
        windows = max(1, self.fvd.limit // self.count)
        starts = np.arange(0, len(fake) - WINDOW + 1, WINDOW)[:windows]
        index = starts[:, None] + np.arange(WINDOW)
        self.fvd.add(clip, real[index], fake[index])
        self.motion.add(clip, real[index], fake[index])

    def metrics(self) -> dict[str, Metric]:
        """The numbers over all clips."""
        judge, mouth, note = self.judge.label, self.scorer.name, self.note
        cross = self.cross
        verdict = self.classifier.label
        pairs, share = f"{verdict}, half of the pairs out of sync", f"{verdict}, called in sync"

        def over_clips(
            name: str, label: str, statistic: Callable[[np.ndarray], float], size: bool = False
        ) -> Metric:
            values = np.array([row[name] for row in self.rows])
            known = np.flatnonzero(np.isfinite(values))
            kept = np.abs(values[known]) if size else values[known]
            value = statistic(kept) if len(kept) else math.nan
            found = metric(value, label + note, len(kept), self.reasons.get(name, ""))
            speakers = [self.speakers[each] for each in known]
            return with_interval(found, name, speakers, lambda chosen: statistic(kept[chosen]))

        def mean(name: str, label: str) -> Metric:
            return over_clips(name, label, lambda values: float(np.mean(values)))

        def median(name: str, label: str, size: bool = False) -> Metric:
            return over_clips(name, label, lambda values: float(np.median(values)), size)

        follows = f"{mouth}, clips within {FOLLOWS_OFFSET:g} frames at z of {FOLLOWS_Z:g} and more"
        mask = "repainted region, reconstruction"
        windows, things = f", {WINDOW}-frame windows, {cross}{note}", f"windows of {WINDOW} frames"
        closed = f"FaceMesh, share of p, b, m with lips closer than {CLOSED:g} of the usual opening"
        gap = "FaceMesh, opening at p, b, m over the usual one, median"
        lips = "FaceMesh lips, % of eye distance (not the published LMD), to the real video"
        return {
            "sync_c": mean("sync_c_cross", f"{judge}, {cross}"),
            "sync_d": mean("sync_d_cross", f"{judge}, {cross}"),
            "sync_offset": median(
                "sync_offset_cross", f"{judge}, {cross}, frames, median of sizes", size=True
            ),
            "sync_accuracy": mean("sync_accuracy_cross", f"{pairs}, {cross}"),
            "sync_accuracy_real": mean("sync_accuracy_real", f"{pairs}, real video"),
            "in_sync_share": mean("in_sync_share_cross", f"{share}, {cross}"),
            "in_sync_share_real": mean("in_sync_share_real", f"{share}, real video"),
            "sync_c_real": mean("sync_c_real", f"{judge}, real video"),
            "sync_d_real": mean("sync_d_real", f"{judge}, real video"),
            "mouth_offset": median(
                "mouth_offset_cross", f"{mouth}, {cross}, frames, median of sizes", size=True
            ),
            "mouth_z": median("mouth_z_cross", f"{mouth}, {cross}, median"),
            "mouth_z_real": median("mouth_z_real", f"{mouth}, real video, median"),
            "follows": mean("follows_cross", f"{follows}, {cross}"),
            "follows_real": mean("follows_real", f"{follows}, real video"),
            "fid": self.fid.result(
                "fid", self.speakers, f", aligned faces, {cross}{note}", "frames"
            ),
            "fvd": self.fvd.result("fvd", self.speakers, windows, things),
            "cd_fvd": self.motion.result("cd_fvd", self.speakers, windows, things),
            "motion_mmd": self.motion.result(
                "motion_mmd",
                self.speakers,
                f", polynomial kernel as in JEDi{windows}",
                things,
                polynomial_mmd,
            ),
            "ssim": mean("ssim", "aligned face, reconstruction"),
            "ssim_mouth": mean("ssim_mouth", mask),
            "psnr_db": mean("psnr_db", mask),
            "lpips": mean("lpips", f"{self.lpips.label}, aligned face, reconstruction"),
            "lmd": mean("lmd", f"{lips} with the same speech, reconstruction"),
            "lmd_cross": mean("lmd_cross", f"{lips} with its own speech, {cross}"),
            "faces_found": mean("faces_found", "FaceMesh, share of generated frames"),
            "leak_opening": mean(
                "leak_opening", "FaceMesh, spread of the mouth's opening in silence over in speech"
            ),
            "leak_moving": mean(
                "leak_moving",
                f"FaceMesh, frames whose opening changes by {MOVES:g} of the face or more, silence",
            ),
            "leak_correlation": mean(
                "leak_correlation", f"FaceMesh, the mouth against the input's own, {cross}"
            ),
            "leak_correlation_real": mean(
                "leak_correlation_real",
                "FaceMesh, the driver's real mouth against the input's own, which is chance",
            ),
            "leak_sync_c": mean("leak_sync_c", f"{judge}, {cross}, judged with the input's speech"),
            "leak_sync_d": mean("leak_sync_d", f"{judge}, {cross}, judged with the input's speech"),
            "closed": mean("closed_cross", f"{closed}, {cross}"),
            "closed_real": mean("closed_real", f"{closed}, real video"),
            "closure_gap": median("closure_gap_cross", f"{gap}, {cross}"),
            "closure_gap_real": median("closure_gap_real", f"{gap}, real video"),
        }


def _too_short(frames: int, what: str) -> str:
    return f"clips of {frames} frames are too short: {what}"
