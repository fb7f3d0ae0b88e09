"""The new face ends at its own chin, and the old jaw does not look out from under it."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from scipy.signal import find_peaks

from datasets.faces.alignment import Aligner, align, align_points
from datasets.faces.landmarks import FaceMeshDetector
from datasets.faces.points import FACE_OVAL, SHAPE
from datasets.sample.face import Face
from datasets.sample.looks import LOOKS
from datasets.sample.portrait import portrait
from models.latentsync.mask import face_mask, soft_edge
from tasks.lipsync.composite import blend_face
from tasks.lipsync.face_oval import oval_weights
from tasks.lipsync.jaw import JawFinder, jaw_movement, join_jaw
from tests.support.portrait import blank

SIDE = 128
REGION = soft_edge(face_mask(SIDE), 3)[0, 0].numpy()
CHIN = FACE_OVAL.index(152)


@dataclass(frozen=True)
class Drawn:
    """An aligned face, and where its points are."""

    picture: np.ndarray
    shape: np.ndarray

    @property
    def chin(self) -> int:
        return round(float(self.shape[CHIN, 1]))


@pytest.fixture(scope="module", params=[0, 3])
def faces(request: pytest.FixtureRequest) -> tuple[Drawn, Drawn]:
    """The same person in the same place with a closed mouth and with an open one."""
    person = portrait(LOOKS[request.param])
    drawing, found, matrix = Face(person), [], None
    for opening in (0.0, 0.8):
        rgba = person.rgba.copy()
        drawing.patch(opening, 0.0, 0.0, rgba)
        alpha = rgba[..., 3:] / 255
        picture = np.ascontiguousarray((rgba[..., :3] + (1 - alpha) * 120).astype(np.uint8))
        with FaceMeshDetector(max_faces=1) as detector:
            (face,) = detector.detect(picture)
        if matrix is None:
            matrix = Aligner(SIDE).matrix(face.landmarks)
        points = align_points(face.landmarks[list(SHAPE)], matrix, SIDE)
        found.append(Drawn(align(picture, matrix, SIDE), points))
    closed, opened = found
    assert opened.chin > closed.chin + 6
    return closed, opened


def oval(chin: float = 100.0, width: float = 42.0) -> np.ndarray:
    """A `FACE_OVAL` from row 10 to a chin."""
    turn = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    middle = (10 + chin) / 2
    return np.stack([64 + width * np.sin(turn), middle - (middle - 10) * np.cos(turn)], axis=1)


def test_the_outline_is_that_of_the_generated_face(faces: tuple[Drawn, Drawn]) -> None:
    with JawFinder() as finder:
        for source in faces:
            for generated in faces:
                found = finder.outline(generated.picture, source.shape)
                assert found is not None
                away = found - generated.shape[: len(FACE_OVAL)]
                assert np.linalg.norm(away, axis=1).mean() < 3
                assert abs(away[CHIN, 1]) < 4


def test_no_outline_where_there_is_no_face_or_another(faces: tuple[Drawn, Drawn]) -> None:
    closed, _ = faces
    aside = np.array([[1.0, 0, 12], [0, 1, 0]])
    moved = cv2.warpAffine(closed.picture, aside, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    with JawFinder() as finder:
        assert finder.outline(blank(SIDE), closed.shape) is None
        assert finder.outline(moved, closed.shape) is None


def join(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A face of level 200 over a source whose level is its row."""
    painted = np.full((SIDE, SIDE, 3), 200, np.uint8)
    source = np.repeat(np.arange(SIDE, dtype=np.uint8)[:, None, None], SIDE, axis=1)
    picture, region = join_jaw(painted, np.repeat(source, 3, axis=2), REGION, old, new)
    return picture[:, 64, 0].astype(float), region[:, 64]


def test_a_lower_jaw_goes_up_to_the_new_one_and_takes_the_neck_along() -> None:
    picture, region = join(oval(chin=112), oval(chin=104))
    shown = region * picture + (1 - region) * np.arange(SIDE)
    assert shown[85:100] == pytest.approx(200, abs=2)
    # The old chin is nowhere: what is seen beneath the new one lay beneath the old one.
    assert shown[112:].min() > 114
    assert (np.diff(shown[118:]) >= 0).all()
    assert np.abs(np.diff(shown[118:])).max() <= 2
    assert shown[-1] == SIDE - 1


def test_a_jaw_that_is_lower_than_the_old_one_presses_the_neck_down() -> None:
    picture, region = join(oval(chin=98), oval(chin=106))
    shown = region * picture + (1 - region) * np.arange(SIDE)
    assert shown[85:102] == pytest.approx(200, abs=2)
    assert shown[117] == pytest.approx(112, abs=2)
    assert (np.diff(shown[117:]) >= 0).all()
    assert shown[-1] == SIDE - 1


def test_with_equal_jaws_the_neck_stays_as_it_is() -> None:
    assert (jaw_movement(oval(), oval(), SIDE) == 0).all()
    _, region = join(oval(chin=100), oval(chin=100))
    assert region[95] > 0.9
    assert region[112] < 0.01


def test_landmarks_that_tremble_do_not_move_the_neck() -> None:
    rng = np.random.default_rng(0)
    trembling = oval() + rng.normal(0, 0.3, (len(FACE_OVAL), 2))
    assert np.abs(jaw_movement(oval(), trembling, SIDE)).max() < 0.3


@pytest.mark.parametrize("chins", [(80, 126), (126, 80), (120, 90), (90, 120), (100, 140)])
def test_no_row_passes_another(chins: tuple[float, float]) -> None:
    old, new = (oval(chin=chin) for chin in chins)
    moved = jaw_movement(old, new, SIDE)
    rows = np.arange(SIDE)[:, None] - moved
    assert (np.diff(rows, axis=0) >= 0).all()
    assert (moved[-1] == 0).all()
    assert np.isfinite(moved).all()


def test_a_jaw_moves_between_the_ears_only() -> None:
    moved = jaw_movement(oval(chin=112), oval(chin=104), SIDE)
    assert moved[104, 64] < -8
    assert np.abs(moved[:, :18]).max() < 1
    assert np.abs(moved[:, -18:]).max() < 1
    assert np.abs(moved[:60]).max() < 0.5


def shown(source: Drawn, painted: np.ndarray) -> np.ndarray:
    with JawFinder() as jaws:
        picture, region = blend_face(
            painted,
            source.picture,
            REGION,
            match=None,
            jaws=jaws,
            shape=source.shape,
        )
    return np.asarray(source.picture + region[..., None] * (picture.astype(float) - source.picture))


def test_a_neck_painted_by_guess_is_not_seen(faces: tuple[Drawn, Drawn]) -> None:
    closed, _ = faces
    painted = closed.picture.copy()
    line = np.s_[closed.chin + 6 : closed.chin + 9, 54:74]
    assert REGION[line].min() > 0.7
    painted[line] = 250
    assert np.abs(painted[line].astype(int) - closed.picture[line]).mean() > 60
    result = shown(closed, painted)
    assert np.abs(result[line] - closed.picture[line]).mean() < 12


def contours(picture: np.ndarray, first: int) -> list[int]:
    """Rows of dark lines across the middle, from a row on."""
    profile = picture[:, 58:71].astype(float).mean(axis=(1, 2))
    return [row for row in find_peaks(-profile, prominence=5)[0].tolist() if row >= first]


def test_a_closed_mouth_over_an_open_jaw_leaves_one_chin(faces: tuple[Drawn, Drawn]) -> None:
    closed, opened = faces
    first, last = closed.chin - 3, opened.chin + 6
    (old,) = (row for row in contours(opened.picture, first) if row <= last)
    (new,) = (row for row in contours(closed.picture, first) if row <= closed.chin + 3)
    assert old >= new + 8
    weights = (REGION * oval_weights(closed.shape[: len(FACE_OVAL)], SIDE))[..., None]
    pasted = opened.picture + weights * (closed.picture.astype(float) - opened.picture)
    assert [row for row in contours(pasted, first) if row <= last] == [new, old]
    found = [row for row in contours(shown(opened, closed.picture), first) if row <= last]
    assert len(found) == 1
    assert abs(found[0] - new) <= 1


def test_an_open_mouth_over_a_closed_jaw_is_not_cut_off(faces: tuple[Drawn, Drawn]) -> None:
    closed, opened = faces
    result = shown(closed, opened.picture)
    chin = np.s_[closed.chin : opened.chin - 2, 54:74]
    before = np.abs(opened.picture[chin].astype(float) - closed.picture[chin]).mean()
    assert before > 10
    assert np.abs(result[chin] - opened.picture[chin]).mean() < 0.3 * before


def test_where_the_new_chin_is_not_known_there_is_room_for_it(faces: tuple[Drawn, Drawn]) -> None:
    closed, _ = faces
    with JawFinder() as jaws:
        picture, region = blend_face(
            blank(SIDE, 200), closed.picture, REGION, match=None, jaws=jaws, shape=closed.shape
        )
    assert (picture == 200).all()
    assert region[min(closed.chin + 5, 112), 64] > 0.7
    assert (region <= REGION).all()
    assert region[60, 4] < 0.5


def test_a_network_that_sees_each_frames_own_face_shows_all_of_its_picture(
    faces: tuple[Drawn, Drawn],
) -> None:
    closed, opened = faces
    painted, source = opened.picture, closed.picture
    picture, region = blend_face(painted, source, REGION, match=None, shape=closed.shape)
    assert picture is painted
    assert region is REGION
    front = np.zeros((SIDE, SIDE), np.float32)
    front[:, :64] = 1
    _, region = blend_face(painted, source, REGION, match=None, shape=closed.shape, front=front)
    assert (region[:, :64] == 0).all()
    assert (region[:, 64:] == REGION[:, 64:]).all()
