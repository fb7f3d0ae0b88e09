"""Whether a face shows the same person: embeddings of SFace (Zhong et al., arXiv 2205.12010).

The file is `face_recognition_sface_2021dec.onnx` of OpenCV's model zoo, a MobileFaceNet that
OpenCV itself runs. Any other ONNX network with the same input will do: one picture, (1, 3, 112,
112) RGB from 0 to 255, a face whose eyes, nose and corners of the mouth lie at `TEMPLATE`.
"""

from pathlib import Path

import cv2
import numpy as np

from models.files.errors import ModelFileError

SIDE = 112
"""Height and width of the network's input."""
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Where ArcFace's alignment (arXiv 1801.07698) puts the eyes, the tip of the nose and the corners
of the mouth, from left to right as seen, pixels."""


class FaceEmbedding:
    """Turns faces into unit vectors.

    Args:
        path: the ONNX file.

    Raises:
        ModelFileError: it is missing, or is not such a network.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelFileError(f"model file {path} is not there: fetch it or give another path")
        self.label = path.stem
        what = "an ONNX network that embeds faces of 112 x 112, such as sface"
        try:
            self._network = cv2.dnn.readNetFromONNX(str(path))
            found = self._forward(np.zeros((SIDE, SIDE, 3), np.uint8))
        except cv2.error as problem:
            raise ModelFileError(
                f"model file {path} cannot be run: expected {what}, fetch it again"
            ) from problem
        if found.ndim != 2 or found.shape[0] != 1 or found.shape[1] < 2:
            raise ModelFileError(
                f"model file {path} gives features of shape {found.shape}: expected {what}"
            )

    def __call__(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Embeddings of faces.

        Args:
            frames: uint8 RGB (n, h, w, 3).
            points: (n, 5, 2) eyes, tip of the nose and corners of the mouth, from left to right
                as seen, pixels.

        Returns:
            float64 (n, d), each of length 1.
        """
        found = [
            self._forward(cv2.warpAffine(frame, similarity(at, TEMPLATE), (SIDE, SIDE)))[0]
            for frame, at in zip(frames, points, strict=True)
        ]
        vectors = np.asarray(found, np.float64)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _forward(self, face: np.ndarray) -> np.ndarray:
        self._network.setInput(cv2.dnn.blobFromImage(face, 1.0, (SIDE, SIDE)))
        return np.asarray(self._network.forward())


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The scaling, rotation and shift that brings points nearest to others (Umeyama 1991).

    Args:
        source: (n, 2).
        target: (n, 2).

    Returns:
        (2, 3), which maps source to target.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    centres = source.mean(0), target.mean(0)
    first, second = source - centres[0], target - centres[1]
    left, sizes, right = np.linalg.svd(second.T @ first)
    flip = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    turn = left * flip @ right
    scale = (sizes * flip).sum() / np.maximum((first**2).sum(), 1e-12)
    return np.column_stack([scale * turn, centres[1] - scale * turn @ centres[0]])


def distances(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine distance (n,) of embeddings (n, d) to one (d,): 0 for the same face, 1 for faces that
    have nothing in common, at most 2."""
    return np.asarray(1 - vectors @ reference)
