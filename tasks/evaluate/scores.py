"""Measures a clip's videos, for one model after another.

What needs no comparison of sets is a number per clip; for FID, FVD and the like a clip gives
features of real and of generated faces. What is known about the real video is shared by all models.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.faces.landmarks import FaceDetector, mouth_opening
from datasets.media import SAMPLES_PER_FRAME
from models.judges.extractors import FeatureExtractor, image_extractor, video_extractor
from models.judges.identity import FaceEmbedding, distances
from models.judges.motion import motion_extractor
from models.latentsync.mask import face_mask
from tasks.evaluate.clips import OpenClip
from tasks.evaluate.judge import load_sync_judge
from tasks.evaluate.leakage import MIN_FACES, no_face
from tasks.evaluate.measurement import Labels, Measurement, SetLabel
from tasks.evaluate.metrics import five_points, landmarks_of, psnr, unrest
from tasks.evaluate.mouths import Faces, mouths_of, note_closures, note_leaks, note_lips
from tasks.evaluate.published import PublishedCrop
from tasks.evaluate.row import Row, too_short
from tasks.evaluate.sets import features, spread_frames, windows
from tasks.evaluate.ssim import ssim
from tasks.recipes.evaluation import EvaluationConfig
from tasks.sync.mouth_audio import MouthAudioScorer
from tasks.sync.networks import SyncCurve, load_own_syncnet, load_window_syncnet
from tasks.weights.by_name import weight_file
from tasks.weights.lpips import load_lpips, lpips
from tasks.weights.trust import trusted_digests

IDENTITY_FRAMES = 16
"""Frames of a video, evenly spread, whose faces are compared with the reference."""
NO_EMBEDDING = "no face embedding is given: --identity-weights sface"
"""Why nothing is known about the identity."""


@dataclass(frozen=True)
class _Truth:
    """What is known about a real video with its own speech."""

    clip_id: str
    curve: SyncCurve
    verdict: SyncCurve
    landmarks: np.ndarray
    seen: float
    """Share of frames with a face."""
    sets: dict[str, np.ndarray]
    """Name of a set -> features of the real pictures; filled when first needed."""


class Scores:
    """Measures one clip after another.

    Args:
        judge_bundle: bundle whose sync network judges if there is no syncnet_v2.
        config: configuration of the evaluation.
        device: device for the networks.
        clips: how many clips share the frames and windows that sets hold at most.
        detector: finds the faces whose mouths are judged.

    Raises:
        UserError: a file of weights is missing.
        ModelFileError: it is damaged.
    """

    def __init__(
        self,
        judge_bundle: Path,
        config: EvaluationConfig,
        device: torch.device,
        clips: int,
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
        self.extractors: dict[str, FeatureExtractor] = {
            "fid": image_extractor(inception, device, trusted=trusted),
            "fvd": video_extractor(i3d, device, trusted=trusted),
            "motion": motion_extractor(file(config.videomae_weights), device),
        }
        self.frames = max(1, config.image_frames // clips)
        self.windows = max(1, config.video_windows // clips)
        self.published = PublishedCrop() if config.protocol == "latentsync" else None
        self.lpips = load_lpips(config.lpips_weights, device, config.trust)
        identity = file(config.identity_weights)
        self.identity = FaceEmbedding(identity) if identity else None
        self.device = device
        self.scorer = MouthAudioScorer()
        self.detector = detector
        self.truth: list[_Truth] = []
        """That of the last clip."""

    @property
    def labels(self) -> Labels:
        """The names of what measures."""
        sets = {name: SetLabel(each.label, each.dim) for name, each in self.extractors.items()}
        if self.published:
            sets["fvd_latentsync"] = sets["fvd"]
        return Labels(
            self.judge.label,
            self.classifier.label,
            self.lpips.label,
            self.scorer.name,
            self.identity.label if self.identity else "",
            sets,
        )

    def _about(self, clip: OpenClip) -> _Truth:
        """What is known about the clip itself; looked at once for all models."""
        name = clip.chosen.clip_id
        if not self.truth or self.truth[0].clip_id != name:
            curve = self.judge.curve(clip.frames, clip.speech)
            verdict = curve
            if self.classifier is not self.judge:
                verdict = self.classifier.curve(clip.frames, clip.speech)
            found = landmarks_of(clip.frames, self.detector)
            self.truth[:] = [_Truth(name, curve, verdict, *found, {})]
        return self.truth[0]

    def measure(
        self,
        clip: OpenClip,
        reconstruction: np.ndarray,
        cross: np.ndarray,
        silence: np.ndarray | None = None,
        hear_leaks: bool = True,
    ) -> Measurement:
        """Measure one clip.

        Args:
            clip: the real frames and sound.
            reconstruction: uint8 (frames, R, R, 3), with the clip's own speech.
            cross: uint8 (cross_frames, R, R, 3), with another clip's speech.
            silence: uint8 (silent_frames, R, R, 3), generated from silence, if it was.
            hear_leaks: whether the judge also hears the input's own speech with the foreign video.
                Trivial models are spared that: what a whole leak reaches is `sync_c_real`.
        """
        row, truth = Row(), self._about(clip)
        curves = self._sync(row, clip, truth, reconstruction, cross)
        self._pictures(row, clip.frames, reconstruction)
        faces: dict[str, tuple[np.ndarray, float]] = {
            "real": (truth.landmarks, truth.seen),
            "reconstruction": landmarks_of(reconstruction, self.detector),
            "cross": landmarks_of(cross, self.detector),
        }
        if silence is not None:
            faces["silence"] = landmarks_of(silence, self.detector)
        note_lips(row, faces, clip, self.scorer)
        mouths = mouths_of(faces)
        note_leaks(row, clip, mouths)
        self._leaked_sync(row, clip.speech, cross, hear_leaks)
        note_closures(row, clip, mouths)
        self._identity(row, clip, faces, cross)
        fake = self._sets(truth, clip.frames[: len(cross)], cross)
        shown = {name: curve.distances.tolist() for name, curve in curves.items()}
        return Measurement(row.values, row.reasons, shown, fake, truth.sets)

    def _sync(
        self,
        row: Row,
        clip: OpenClip,
        truth: _Truth,
        reconstruction: np.ndarray,
        cross: np.ndarray,
    ) -> dict[str, SyncCurve]:
        """How far lips and sound are apart, by the networks."""
        pairs = {
            "reconstruction": (reconstruction, clip.speech),
            "cross": (cross, clip.driving),
        }
        curves = {name: self.judge.curve(*pair) for name, pair in pairs.items()}
        verdicts = curves
        if self.classifier is not self.judge:
            verdicts = {name: self.classifier.curve(*pair) for name, pair in pairs.items()}
        curves = {"real": truth.curve, **curves}
        verdicts = {"real": truth.verdict, **verdicts}
        pairs["real"] = (clip.frames, clip.speech)
        for name, curve in curves.items():
            row.note(f"sync_c_{name}", curve.confidence)
            row.note(f"sync_d_{name}", curve.distance)
            row.note(f"sync_offset_{name}", curve.offset)
            row.note(f"in_sync_share_{name}", verdicts[name].in_sync_share)
            row.note(f"sync_accuracy_{name}", verdicts[name].accuracy)
            frames, sound = pairs[name]
            self._sync_reasons(row, name, min(len(frames), len(sound) // SAMPLES_PER_FRAME))
        return curves

    def _sync_reasons(self, row: Row, kind: str, frames: int) -> None:
        """Why the sync networks found nothing for a clip of a given length."""
        judges = {
            "sync_c": self.judge,
            "sync_d": self.judge,
            "sync_offset": self.judge,
            "in_sync_share": self.classifier,
            "sync_accuracy": self.classifier,
        }
        for name, network in judges.items():
            if math.isfinite(row.values[f"{name}_{kind}"]):
                continue
            reason = f"{network.label} says of no window whether it is in sync"
            if frames < network.min_frames:
                reason = too_short(frames, "the search over shifts of the sound")
                reason += f" needs {network.min_frames} frames or more"
            elif name == "sync_accuracy" and math.isfinite(row.values[f"in_sync_share_{kind}"]):
                reason = too_short(frames, "no part of the sound is far enough from another")
            row.reasons[f"{name}_{kind}"] = reason

    def _pictures(self, row: Row, real: np.ndarray, fake: np.ndarray) -> None:
        repainted = face_mask(real.shape[1], "cpu")[0, 0].numpy() < 0.5
        whole, mouth = ssim(real, fake, repainted).mean(1)
        row.note("ssim", float(whole))
        row.note("ssim_mouth", float(mouth))
        value = psnr(real, fake, repainted)
        row.note("psnr_db", value, "" if math.isfinite(value) else "the pictures are equal")
        row.note("lpips", float(lpips(self.lpips, real, fake, self.device).mean()))
        usual = unrest(real, repainted) if len(real) > 2 else 0.0
        if usual > 0:
            row.note("flicker", unrest(fake, repainted) / usual)
        else:
            row.lack("flicker", "nothing moves in the real video")

    def _leaked_sync(self, row: Row, own: np.ndarray, cross: np.ndarray, hear_leaks: bool) -> None:
        """Whether lips under foreign speech look as if the clip's own speech were heard."""
        names = ("leak_sync_c", "leak_sync_d")
        if not hear_leaks:
            for name in names:
                row.lack(name, "only the model's own videos are judged so")
            return
        curve = self.judge.curve(cross, own[: len(cross) * SAMPLES_PER_FRAME])
        reason = too_short(len(cross), "the search over shifts of the sound")
        reason += f" needs {self.judge.min_frames} frames or more"
        for name, value in zip(names, (curve.confidence, curve.distance), strict=True):
            row.note(name, value, "" if math.isfinite(value) else reason)

    def _identity(self, row: Row, clip: OpenClip, faces: Faces, cross: np.ndarray) -> None:
        """How far the faces are from the reference, which is the clip's calmest frame."""
        shown = {"real": clip.frames, "cross": cross}
        if self.identity is None:
            for kind in shown:
                row.lack(f"identity_{kind}", NO_EMBEDDING)
            return
        calm = int(mouth_opening(clip.landmarks).argmin())
        truth, seen_real = faces["real"]
        for kind, frames in shown.items():
            landmarks, seen = faces[kind]
            if min(seen, seen_real) < MIN_FACES:
                row.lack(f"identity_{kind}", no_face(min(seen, seen_real)))
                continue
            (reference,) = self.identity(clip.frames[[calm]], five_points(truth[[calm]]))
            chosen = spread_frames(len(frames), IDENTITY_FRAMES)
            found = self.identity(frames[chosen], five_points(landmarks[chosen]))
            row.note(f"identity_{kind}", float(distances(found, reference).mean()))

    def _sets(self, truth: _Truth, real: np.ndarray, fake: np.ndarray) -> dict[str, np.ndarray]:
        """Features of as many generated frames and windows as of real ones, which `truth` gets."""
        frames = spread_frames(len(fake), self.frames)
        index = windows(len(fake), self.windows)
        chosen = {"fid": frames, "fvd": index, "motion": index}
        found = {}
        for name, extractor in self.extractors.items():
            if name not in truth.sets:
                truth.sets[name] = features(extractor, real[chosen[name]])
            found[name] = features(extractor, fake[chosen[name]])
        if self.published:
            name, extractor = "fvd_latentsync", self.extractors["fvd"]
            if name not in truth.sets:
                truth.sets[name] = features(extractor, self.published(real))
            found[name] = features(extractor, self.published(fake))
        return found
