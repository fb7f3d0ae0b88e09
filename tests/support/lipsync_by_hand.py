"""Lip-sync written out: every frame in memory, every window by `LatentSync.generate` itself."""

from pathlib import Path

import numpy as np
import torch

from datasets.faces.alignment import Aligner, align, paste_back
from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import read_audio, read_frames
from models.latentsync.model import LatentSync
from tasks.lipsync.face_scan import MOST_FACES


def lip_sync_by_hand(
    video: Path, audio: Path, bundle: Path, *, count: int, ways: int, steps: int, guidance: float
) -> np.ndarray:
    """The first `count` frames of a video of one face in one shot, uint8 (count, h, w, 3).

    Each frame is its own reference, window k of a sequence begins at its frame 12 k, and the
    sound is one block of tokens.
    """
    model = LatentSync.load(bundle)
    aligner, frames, matrices, times = Aligner(model.config.resolution), [], [], []
    with FaceMeshDetector(max_faces=MOST_FACES, thorough=True) as detector:
        for frame in read_frames(video, fps=None):
            matrices.append(aligner.matrix(detector.detect(frame.picture)[0].landmarks))
            frames.append(frame.rgb)
            times.append(frame.time_s)
            if len(frames) == count:
                break
    faces = np.stack(
        [
            align(frame, matrix, model.config.resolution)
            for frame, matrix in zip(frames, matrices, strict=True)
        ]
    )
    tokens = _tokens(model, read_audio(audio), np.array(times))
    painted = np.zeros(faces.shape, np.float32)
    for way in range(ways):
        mine = np.arange(way, count, ways)
        painted[mine] = _sequence(model, faces[mine], tokens[mine], steps, guidance)
    region = model.alpha[0, 0].numpy()
    return np.stack(
        [
            paste_back(frame, np.rint(face).astype(np.uint8), matrix, region)
            for frame, face, matrix in zip(frames, painted, matrices, strict=True)
        ]
    )


def _tokens(model: LatentSync, wave: np.ndarray, times: np.ndarray) -> torch.Tensor:
    """What is heard at each time, to a quarter of a 25 fps frame: the sound is moved so that the
    moment is the beginning of a whole frame."""
    found = []
    for time in times:
        quarter = round(time * 100)
        moved = wave[quarter % 4 * 160 :]
        frames = len(moved) // 640 + 1
        padded = np.zeros(frames * 640, np.float32)
        padded[: len(moved)] = moved
        found.append(model.tokens(torch.from_numpy(padded), frames)[quarter // 4])
    return torch.stack(found)


def _sequence(
    model: LatentSync, faces: np.ndarray, tokens: torch.Tensor, steps: int, guidance: float
) -> np.ndarray:
    """Faces 40 ms apart, in windows of 16 that share 4 frames or more."""
    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float()[None] / 127.5 - 1
    starts = sorted({*range(0, len(faces) - 16, 12), len(faces) - 16})
    out = np.zeros(faces.shape, np.float32)
    done = 0
    for start in starts:
        window = slice(start, start + 16)
        generated = model.generate(
            pixels[:, window],
            pixels[:, window],
            tokens[None, window],
            steps=steps,
            guidance=guidance,
            generator=torch.Generator().manual_seed(1247),
        )
        new = (generated[0].permute(0, 2, 3, 1).numpy() + 1) * 127.5
        shared = done - start
        for index in range(16):
            share = 1.0 if index >= shared else (index + 1) / (shared + 1)
            out[start + index] = (1 - share) * out[start + index] + share * new[index]
        done = start + 16
    return out
