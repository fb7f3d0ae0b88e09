"""The numbers of an evaluation, each with label and interval, from the measurements of clips."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.judges.frechet import frechet_distance
from models.judges.motion import polynomial_mmd
from tasks.evaluate.closure import CLOSED
from tasks.evaluate.leakage import MOVES
from tasks.evaluate.measurement import Labels, Measurement
from tasks.evaluate.mouths import FOLLOWS_OFFSET, FOLLOWS_Z
from tasks.evaluate.published import CLIPS
from tasks.evaluate.sets import PUBLISHED_FIRST, WINDOW, Distance, SetDistance
from tasks.registry.intervals import DRAWS, with_interval
from tasks.registry.metric import NO_SILENCE, ClipValues, Metric, metric
from tasks.registry.paired import Statistic, mean, median, median_size

STATISTICS: Mapping[str, tuple[str, Statistic]] = {
    "sync_c": ("sync_c_cross", mean),
    "sync_d": ("sync_d_cross", mean),
    "sync_offset": ("sync_offset_cross", median_size),
    "sync_accuracy": ("sync_accuracy_cross", mean),
    "sync_accuracy_real": ("sync_accuracy_real", mean),
    "in_sync_share": ("in_sync_share_cross", mean),
    "in_sync_share_real": ("in_sync_share_real", mean),
    "sync_c_real": ("sync_c_real", mean),
    "sync_d_real": ("sync_d_real", mean),
    "mouth_offset": ("mouth_offset_cross", median_size),
    "mouth_z": ("mouth_z_cross", median),
    "mouth_z_real": ("mouth_z_real", median),
    "follows": ("follows_cross", mean),
    "follows_real": ("follows_real", mean),
    "ssim": ("ssim", mean),
    "ssim_mouth": ("ssim_mouth", mean),
    "psnr_db": ("psnr_db", mean),
    "lpips": ("lpips", mean),
    "flicker": ("flicker", mean),
    "identity": ("identity_cross", mean),
    "identity_real": ("identity_real", mean),
    "lmd": ("lmd", mean),
    "lmd_cross": ("lmd_cross", mean),
    "faces_found": ("faces_found", mean),
    "leak_opening": ("leak_opening", mean),
    "leak_moving": ("leak_moving", mean),
    "leak_correlation": ("leak_correlation", mean),
    "leak_correlation_real": ("leak_correlation_real", mean),
    "leak_sync_c": ("leak_sync_c", mean),
    "leak_sync_d": ("leak_sync_d", mean),
    "closed": ("closed_cross", mean),
    "closed_real": ("closed_real", mean),
    "closure_gap": ("closure_gap_cross", median),
    "closure_gap_real": ("closure_gap_real", median),
}
"""Metric -> the clips' number that it summarises, and how."""
NO_EMBEDDING_LABEL = "no face embedding"
COMPARABLE = "; compares with the same clips by this program, not with published tables"
"""Of distances of sets: other crops, clips and numbers of samples give other distances."""


class Summary:
    """Gathers one model's measurements, clip by clip, in the order of the list.

    Args:
        labels: who measured.
        note: what to append to every label.
        cross: what labels call the speech of the cross videos.
        draws: of a bootstrap.
    """

    def __init__(
        self, labels: Labels, note: str = "", cross: str = "cross audio", draws: int = DRAWS
    ) -> None:
        self.labels, self.note, self.cross, self.draws = labels, note, cross, draws
        self.found: list[Measurement] = []
        self.speakers: list[str] = []
        """Of each clip."""

    def add(self, speaker: str, found: Measurement) -> None:
        """Take a clip."""
        self.speakers.append(speaker)
        self.found.append(found)

    @property
    def reasons(self) -> dict[str, str]:
        """Reasons for missing numbers: those of the last clip, since they are usually all alike."""
        reasons: dict[str, str] = {}
        for each in self.found:
            for name, reason in each.reasons.items():
                if reason != NO_SILENCE or name not in reasons:
                    # Other clips' reasons say more than that a clip has no video in silence.
                    reasons[name] = reason
        return reasons

    def metrics(self) -> dict[str, Metric]:
        """All numbers."""
        found = self.of_clips()
        # Distances of sets stand before the other numbers about pictures.
        names = list(found)
        first = names[: names.index("ssim")]
        head = {name: found.pop(name) for name in first}
        return {**head, **self._distances(), **found}

    def clip_values(self, clips: Sequence[str]) -> ClipValues:
        """The numbers of single clips that metrics are made of, without those of real videos.

        Args:
            clips: names of the clips, in the order in which they were added.
        """
        found = {
            name: [each.values[number] for each in self.found]
            for name, (number, _) in STATISTICS.items()
            if not name.endswith("_real")
        }
        return {
            "clips": list(clips),
            "speakers": list(self.speakers),
            "values": {
                name: [float(f"{each:.6g}") if math.isfinite(each) else None for each in values]
                for name, values in found.items()
                if any(map(math.isfinite, values))
            },
            "how": {
                name: statistic.__name__
                for name, (_, statistic) in STATISTICS.items()
                if name in found
            },
        }

    def of_clips(self) -> dict[str, Metric]:
        """The numbers that are means or medians over clips."""
        reasons, labels = self.reasons, self._labels()
        found = {}
        for name, (number, statistic) in STATISTICS.items():
            values = np.array([each.values[number] for each in self.found])
            known = np.flatnonzero(np.isfinite(values))
            kept = values[known]
            value = statistic(kept) if len(kept) else math.nan
            entry = metric(value, labels[name] + self.note, len(kept), reasons.get(number, ""))
            found[name] = with_interval(
                entry,
                number,
                [self.speakers[each] for each in known],
                lambda chosen, statistic=statistic, kept=kept: statistic(kept[chosen]),  # type: ignore[misc]
                self.draws,
            )
        return found

    def _labels(self) -> dict[str, str]:
        """Metric -> by what it is measured, and on which videos."""
        cross, judge, mouth = self.cross, self.labels.judge, self.labels.mouth
        verdict = self.labels.classifier
        pairs, share = f"{verdict}, half of the pairs out of sync", f"{verdict}, called in sync"
        follows = f"{mouth}, clips within {FOLLOWS_OFFSET:g} frames at z of {FOLLOWS_Z:g} and more"
        mask = "repainted region, reconstruction"
        closed = f"FaceMesh, share of p, b, m with lips closer than {CLOSED:g} of the usual opening"
        gap = "FaceMesh, opening at p, b, m over the usual one, median"
        lips = "FaceMesh lips, % of eye distance (not the published LMD), to the real video"
        embedding = self.labels.identity or NO_EMBEDDING_LABEL
        person = f"{embedding}, cosine distance to the clip's calmest frame"
        leaked = f"{judge}, {cross}, judged with the input's speech"
        moving = f"FaceMesh, frames whose opening changes by {MOVES:g} of the face or more, silence"
        return {
            "sync_c": f"{judge}, {cross}",
            "sync_d": f"{judge}, {cross}",
            "sync_offset": f"{judge}, {cross}, frames, median of sizes",
            "sync_accuracy": f"{pairs}, {cross}",
            "sync_accuracy_real": f"{pairs}, real video",
            "in_sync_share": f"{share}, {cross}",
            "in_sync_share_real": f"{share}, real video",
            "sync_c_real": f"{judge}, real video",
            "sync_d_real": f"{judge}, real video",
            "mouth_offset": f"{mouth}, {cross}, frames, median of sizes",
            "mouth_z": f"{mouth}, {cross}, median",
            "mouth_z_real": f"{mouth}, real video, median",
            "follows": f"{follows}, {cross}",
            "follows_real": f"{follows}, real video",
            "ssim": "aligned face, reconstruction",
            "ssim_mouth": mask,
            "psnr_db": mask,
            "lpips": f"{self.labels.lpips}, aligned face, reconstruction",
            "flicker": f"second differences over the real video's, {mask}",
            "identity": f"{person}, {cross}",
            "identity_real": f"{person}, real video",
            "lmd": f"{lips} with the same speech, reconstruction",
            "lmd_cross": f"{lips} with its own speech, {cross}",
            "faces_found": "FaceMesh, share of generated frames",
            "leak_opening": "FaceMesh, spread of the mouth's opening in silence over in speech",
            "leak_moving": moving,
            "leak_correlation": f"FaceMesh, the mouth against the input's own, {cross}",
            "leak_correlation_real": (
                "FaceMesh, the driver's real mouth against the input's own, which is chance"
            ),
            "leak_sync_c": leaked,
            "leak_sync_d": leaked,
            "closed": f"{closed}, {cross}",
            "closed_real": f"{closed}, real video",
            "closure_gap": f"{gap}, {cross}",
            "closure_gap_real": f"{gap}, real video",
        }

    def _set(self, name: str) -> SetDistance:
        return SetDistance(
            self.labels.sets[name],
            [each.real[name] for each in self.found],
            [each.fake[name] for each in self.found],
        )

    def _distances(self) -> dict[str, Metric]:
        """The numbers that compare sets."""
        note = f", {WINDOW}-frame windows, {self.cross}{self.note}{COMPARABLE}"
        things = f"windows of {WINDOW} frames"
        frames = f", aligned faces, {self.cross}{self.note}{COMPARABLE}"

        def of(
            set_name: str,
            name: str,
            note: str,
            things: str = things,
            measure: Distance = frechet_distance,
        ) -> Metric:
            return self._set(set_name).result(name, self.speakers, note, things, measure)

        found = {
            "fid": of("fid", "fid", frames, "frames"),
            "fvd": of("fvd", "fvd", note),
            "cd_fvd": of("motion", "cd_fvd", note),
            "motion_mmd": of(
                "motion",
                "motion_mmd",
                f", polynomial kernel as in JEDi{note}",
                measure=polynomial_mmd,
            ),
        }
        if "fvd_latentsync" in self.labels.sets:
            found["fvd_latentsync"] = of("fvd_latentsync", "fvd_latentsync", self._published())
        return found

    def _published(self) -> str:
        """What the number by the published protocol compares with, as exactly as is known."""
        last, clips = PUBLISHED_FIRST + WINDOW - 1, len(self.found)
        view = (
            f", frames {PUBLISHED_FIRST} to {last} of each clip, box of MediaPipe's short-range "
            f"face detector in the aligned face, {self.cross}{self.note}"
        )
        if clips != CLIPS:
            return f"{view}; compares with nothing published: {clips} clips, {CLIPS} are needed"
        return (
            f"{view}; compares with LatentSync's published FVD if the network is i3d and the "
            "clips are of HDTF or VoxCeleb2, up to which clips were drawn"
        )


def summarise(
    labels: Labels,
    speakers: Sequence[str],
    found: Sequence[Measurement],
    note: str,
    cross: str,
    draws: int = DRAWS,
) -> Summary:
    """A summary of clips that are all there."""
    summary = Summary(labels, note, cross, draws)
    for speaker, each in zip(speakers, found, strict=True):
        summary.add(speaker, each)
    return summary
