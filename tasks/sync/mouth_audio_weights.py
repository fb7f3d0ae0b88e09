"""Which distances in the face match which bands of the speech.

Fitted by `python -m benchmarks.mouth_audio_fit` on talking heads whose offset is known, as a
regularised canonical correlation over 13 speakers and 78 s of speech, rounded. The same
program shows how such weights perform on a speaker left out of the fit.
"""

from dataclasses import dataclass

import numpy as np

BAND_EDGES_HZ = (100, 300, 500, 750, 1050, 1400, 1850, 2450, 3200, 4200, 5500, 7500)
DISTANCES = (
    # Outer lips, mouth's width, inner lips and their width.
    (0, 17),
    (61, 291),
    (13, 14),
    (78, 308),
    # From below the nose to upper lip, lower lip and chin.
    (2, 0),
    (2, 17),
    (2, 152),
    # How thick the upper and the lower lip are.
    (0, 13),
    (14, 17),
    # Outer and inner lips next to the middle.
    (37, 84),
    (267, 314),
    (82, 87),
    (312, 317),
    # Lower lip to chin.
    (17, 152),
)
"""Pairs of FaceMesh's landmarks."""


@dataclass(frozen=True)
class MouthAudioWeights:
    """Courses over time, each a sum of distances and a sum of bands that match."""

    mouth: np.ndarray
    """(distances, courses)."""
    sound: np.ndarray
    """(bands, courses)."""
    shares: np.ndarray
    """(courses,) the weight of each: its canonical correlation."""


WEIGHTS = MouthAudioWeights(
    mouth=np.array(
        [
            [0.36, -0.16, 0.28, -0.07, 0.37, 0.54, 0.65, 1.0, 0.96, 0.36, 0.34, 0.3, 0.29, -0.8],
            [0.0, -0.23, -0.01, -0.22, 0.6, 0.07, 0.36, 1.0, -0.35, 0.01, 0.0, -0.01, -0.02, 0.16],
        ]
    ).T,
    sound=np.array(
        [
            [0.12, -0.56, 0.26, 0.97, 0.45, 0.52, 0.72, 1.0, 0.7, 0.65, -0.55],
            [-0.41, 0.32, 0.28, 0.71, 1.0, -0.49, -0.17, -0.3, -0.19, -0.76, -0.61],
        ]
    ).T,
    shares=np.array([0.49, 0.29]),
)
"""First the jaw with the energy of open vowels and fricatives, then the upper lip, raised and
drawn together, with the balance of middle over high and low bands."""
