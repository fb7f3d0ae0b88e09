"""The affine alignment: published numbers, geometry, and the way back."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from datasets.faces.alignment import (
    BOX_CENTRE,
    BOX_HEIGHT,
    BOXED,
    CROP_SIZE,
    CROPS,
    FILL,
    TEMPLATE,
    Aligner,
    align,
    align_points,
    aligner_for,
    crop_size,
    invert,
    paste_back,
    three_points,
)
from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import Picture, read_frames
from tests.support.portrait import portrait

POINTS = np.array([[423.0, 308.0], [520.0, 297.0], [473.0, 372.0]])


def smooth_image(height: int = 480, width: int = 640) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height // 16, width // 16, 3))
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def test_published_matrices() -> None:
    # First frame of the reference's own output, with and without its smoothing.
    plain = Aligner(256, smooth=False).matrix_of_points(POINTS)
    assert plain == pytest.approx(
        np.array([[1.0388364, -0.08748532, -356.83969], [0.08748532, 1.0388365, -304.94077]]),
        rel=1e-5,
    )
    smooth = Aligner(256).matrix_of_points(POINTS)
    assert smooth[:, 2] == pytest.approx([-356.86472, -305.20404], rel=1e-5)


def test_smoothing_carries_a_fifth_over_and_forgets_at_reset() -> None:
    aligner = Aligner(256)
    first = aligner.matrix_of_points(POINTS)
    moved = POINTS + np.array([[0, 0], [0, 0], [6, -4]])
    second = aligner.matrix_of_points(moved)
    alone = Aligner(256).matrix_of_points(moved)
    bias_before = first - Aligner(256, smooth=False).matrix_of_points(POINTS)
    bias_alone = alone - Aligner(256, smooth=False).matrix_of_points(moved)
    assert second - alone == pytest.approx(0.2 * (bias_before - bias_alone), abs=1e-9)
    aligner.reset()
    assert aligner.matrix_of_points(moved) == pytest.approx(alone)


@pytest.mark.parametrize("resolution", [64, 128, 256, 512])
def test_template_maps_onto_itself(resolution: int) -> None:
    turn = np.deg2rad(20)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = 1.7 * TEMPLATE @ rotation.T + [300, 80]
    matrix = Aligner(resolution, smooth=False).matrix_of_points(points)
    back = points @ matrix[:, :2].T + matrix[:, 2]
    assert back == pytest.approx(TEMPLATE * resolution / 256, abs=1e-6)


def test_mirrored_points_give_a_rotation_not_a_reflection() -> None:
    mirrored = POINTS * [-1, 1] + [900, 0]
    matrix = Aligner(256).matrix_of_points(mirrored)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_useless_points_are_refused() -> None:
    with pytest.raises(ValueError, match="three different points"):
        Aligner(256).matrix_of_points(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="resolution 4"):
        Aligner(4)


def test_three_points_are_brow_brow_nose() -> None:
    mesh = np.zeros((478, 2), np.float32)
    mesh[[70, 63, 105, 66, 107, 46, 53, 52, 65, 55]] = (10, 20)
    mesh[[300, 293, 334, 296, 336, 276, 283, 282, 295, 285]] = (50, 22)
    mesh[[168, 197, 5, 4]] = (30, 40)
    mesh[[75, 97, 2, 326, 305]] = (30, 49)
    # As of the 68 points: four along the bridge, five around the nostrils.
    assert three_points(mesh).tolist() == [[10, 20], [50, 22], [30, 45]]


def test_aligned_points_lie_where_the_pixels_do() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    spot = np.array([330.0, 260.0])
    cv2.circle(image, (330, 260), 6, (255, 255, 255), -1)
    points = np.array([[300.0, 220.0], [370.0, 215.0], [335.0, 255.0]])
    for resolution in (128, 256):
        matrix = Aligner(resolution).matrix_of_points(points)
        face = align(image, matrix, resolution).astype(float)[..., 0]
        rows, columns = np.nonzero(face > 128)
        where = align_points(spot[None], matrix, resolution)[0]
        assert where == pytest.approx([columns.mean(), rows.mean()], abs=0.6)


def test_outside_of_the_image_is_grey() -> None:
    matrix = Aligner(256).matrix_of_points(POINTS - [420, 290])
    assert (align(smooth_image(), matrix, 256)[:20, :20] == FILL).all()


def test_crop_and_inverse() -> None:
    assert crop_size(256) == CROP_SIZE
    assert crop_size(512) == (420, 560)
    matrix = Aligner(256).matrix_of_points(POINTS)
    both = invert(matrix) @ np.vstack([matrix, [0, 0, 1]])
    assert both == pytest.approx(np.eye(3)[:2], abs=1e-9)


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_an_unchanged_face_comes_back_unchanged(scale: float) -> None:
    image = smooth_image()
    middle = np.array([320.0, 200.0])
    points = (TEMPLATE - TEMPLATE.mean(axis=0)) * scale / 2 + middle
    matrix = Aligner(256).matrix_of_points(points)
    back = paste_back(image, align(image, matrix, 256), matrix)
    assert np.abs(back.astype(int) - image).max() <= 12
    assert np.abs(back.astype(int) - image).mean() < 0.5


def test_only_the_face_changes() -> None:
    image = smooth_image()
    before = image.copy()
    points = np.array([[290.0, 200.0], [350.0, 198.0], [321.0, 230.0]])
    matrix = Aligner(256).matrix_of_points(points)
    out = paste_back(image, np.full((256, 256, 3), 255, np.uint8), matrix)
    assert (image == before).all()
    changed = np.argwhere((out != image).any(axis=2))[:, ::-1]
    inside = changed @ matrix[:, :2].T + matrix[:, 2]
    assert (inside > -0.5).all()
    assert (inside < np.array(CROP_SIZE) - 0.5).all()
    middle = invert(matrix) @ [105, 140, 1]
    assert (out[round(middle[1]), round(middle[0])] == 255).all()
    steps = np.abs(np.diff((out.astype(int) - image)[round(middle[1]), :, 0]))
    assert steps.max() < 160, "the edge must be soft"


def test_a_region_limits_what_changes() -> None:
    image = smooth_image()
    matrix = Aligner(256).matrix_of_points(
        np.array([[290.0, 200.0], [350.0, 198.0], [321.0, 230.0]])
    )
    region = np.zeros((256, 256), np.float32)
    region[128:] = 1
    out = paste_back(image, np.full((256, 256, 3), 255, np.uint8), matrix, region)
    changed = np.argwhere((out != image).any(axis=2))[:, ::-1]
    assert len(changed) > 500
    rows = align_points(changed.astype(float), matrix, 256)[:, 1]
    assert rows.min() > 125


def test_a_face_beyond_the_border() -> None:
    image = smooth_image()
    for shift in ([-330, -200], [300, 260], [5000, 0]):
        points = np.array([[290.0, 200.0], [350.0, 198.0], [321.0, 230.0]]) + shift
        matrix = Aligner(256).matrix_of_points(points)
        out = paste_back(image, np.full((256, 256, 3), 255, np.uint8), matrix)
        assert out.shape == image.shape
        assert (out != image).any() == (shift[0] < 1000)


def test_a_picture_gives_the_same_face_as_its_rgb() -> None:
    rgb = cv2.resize(portrait(300), (1200, 1200), interpolation=cv2.INTER_CUBIC)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    frame.colorspace = 5
    whole = frame.to_ndarray(format="rgb24")
    for points in ([[300, 400], [620, 380], [470, 600]], [[10, 900], [150, 850], [60, 1100]]):
        matrix = Aligner(256).matrix_of_points(np.array(points, np.float64))
        difference = align(Picture(frame), matrix).astype(int) - align(whole, matrix)
        assert np.abs(difference).max() <= 2
        assert np.abs(difference).mean() < 0.05


def test_cubic_resizing_is_as_good_as_lanczos() -> None:
    """The reference resizes the crop by Lanczos; ours must be indistinguishable from it."""
    matrix = Aligner(256).matrix_of_points(np.array([[100, 120], [190, 115], [150, 180]]))
    image = portrait(320)
    width, height = crop_size(256)
    crop = cv2.warpAffine(image, matrix, (width, height), borderValue=(127, 127, 127))
    lanczos = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_LANCZOS4)
    assert np.abs(align(image, matrix).astype(int) - lanczos).mean() < 0.5


def test_a_matrix_without_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="has no inverse"):
        invert(np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]))


@pytest.mark.parametrize("resolution", [128, 256, 512])
def test_the_corners_of_the_crop_become_those_of_the_square(resolution: int) -> None:
    """Pixel centres are at whole numbers, so a picture begins half a pixel before the first."""
    width, height = crop_size(resolution)
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    moved = align_points(
        corners + np.array([30, -20]), np.array([[1.0, 0, -30], [0, 1, 20]]), resolution
    )
    np.testing.assert_allclose(moved, [[-0.5, -0.5], [resolution - 0.5] * 2], atol=1e-3)


def test_points_lie_where_the_picture_shows_them() -> None:
    """A ramp along both axes says of every pixel of the square where it comes from."""
    y, x = np.mgrid[0:300, 0:300]
    image = np.stack([x, y, np.zeros_like(x)], axis=-1) / 300 * 255
    matrix = np.array([[0.8, 0.1, -12.0], [-0.1, 0.8, 31.0]])
    face = align(np.rint(image).astype(np.uint8), matrix, 256).astype(float) / 255 * 300
    source = np.array([[100.0, 120.0], [180.0, 200.0], [150.0, 90.0], [210.0, 140.0]])
    for (column, row), expected in zip(align_points(source, matrix, 256), source, strict=True):
        found = cv2.getRectSubPix(face.astype(np.float32), (1, 1), (float(column), float(row)))
        np.testing.assert_allclose(found[0, 0, :2], expected, atol=0.9)


def turned(mesh: np.ndarray, degrees: float, scale: float = 1.0) -> np.ndarray:
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = mesh.mean(axis=0)
    return (mesh - centre) @ rotation.T * scale + centre + 40


def test_a_box_crop_leaves_heads_as_tilted_as_they_are() -> None:
    rng = np.random.default_rng(0)
    mesh = rng.uniform(100, 300, (478, 2))
    tilted = turned(mesh, 30, 1.7)
    for resolution in (128, 256):
        width, height = crop_size(resolution)
        matrix = aligner_for(BOXED, resolution).matrix(tilted)
        # No turn, one scale; the box has the place and the height that it should have.
        assert matrix[0, 1] == matrix[1, 0] == 0
        assert matrix[0, 0] == matrix[1, 1]
        seen = tilted @ matrix[:, :2].T + matrix[:, 2]
        assert np.ptp(seen[:, 1]) == pytest.approx(BOX_HEIGHT * height, rel=0.01)
        middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
        assert middle == pytest.approx(np.array(BOX_CENTRE) * (width, height), abs=0.6)


def test_a_box_crop_shows_about_what_the_aligned_one_does(shared: Path) -> None:
    """On a real face that looks into the camera."""
    frames = read_frames(shared / "clips" / "latentsync_demo1_25fps.mp4", fps=None)
    picture = next(iter(frames)).picture
    with FaceMeshDetector(max_faces=1) as detector:
        (face,) = detector.detect(picture)
    seen = [
        align_points(face.landmarks, aligner_for(crop, 256).matrix(face.landmarks), 256)
        for crop in CROPS
    ]
    assert np.abs(seen[0] - seen[1]).mean() < 12


def test_an_unknown_crop_is_named() -> None:
    with pytest.raises(ValueError, match=r"no crop 'round': choose latentsync-1\.5 or face-box"):
        aligner_for("round", 256)
