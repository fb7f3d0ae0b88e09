from pathlib import Path

import numpy as np
import pytest

from models.files.errors import ModelFileError
from models.judges.identity import SIDE, TEMPLATE, FaceEmbedding, distances, similarity
from tests.support.tiny_onnx import write_embedding


def turned(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]):  # type: ignore[no-untyped-def]
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 0.5), (-120, 2)])
def test_points_are_brought_back_whatever_turned_them(degrees: float, scale: float) -> None:
    source = turned(TEMPLATE, degrees, scale, (7, -3))
    matrix = similarity(source, TEMPLATE)
    np.testing.assert_allclose(source @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    matrix = similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_only_the_face_at_the_points_is_embedded(tmp_path: Path) -> None:
    """The network says the mean colour, so the face must fill its picture, in RGB."""
    embed = FaceEmbedding(write_embedding(tmp_path / "colour.onnx"))
    assert embed.label == "colour"
    side = 300
    frames = np.zeros((2, side, side, 3), np.uint8)
    frames[..., 2] = 255
    places = np.stack([np.add(TEMPLATE, [20, 10]), np.add(0.5 * TEMPLATE, [200, 150])])
    frames[0, 10 : 10 + SIDE, 20 : 20 + SIDE] = (200, 100, 50)
    frames[1, 150 : 150 + SIDE // 2, 200 : 200 + SIDE // 2] = (50, 100, 200)
    found = embed(frames, places)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    expected = np.array([[200, 100, 50], [50, 100, 200]]) / np.linalg.norm([200, 100, 50])
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(distances(found, found[0]), [0, 1 - found[1] @ found[0]])


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_other_files_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    match = "is not there" if content is None else "cannot be run: expected an ONNX network"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=match):
        FaceEmbedding(path)


def test_a_network_that_gives_no_vector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"features of shape \(1, 3, 1, 1\)"):
        FaceEmbedding(write_embedding(tmp_path / "wrong.onnx", flat=False))
