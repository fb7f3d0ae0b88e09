"""People made from one portrait, cut out, recoloured and reshaped.

The portrait is `skimage.data.astronaut()` (NASA, public domain, 512 x 512). It is cut out
once per process, its skin, hair and suit are recoloured, its face is reshaped by a smooth
warp, and it is enlarged to `ZOOM` times its size. Coordinates called "portrait pixels" are
those of the original image; the landmarks below were measured on it once with FaceMesh.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from datasets.sample.looks import Look

SIZE = 512
ZOOM = 2.5
"""Pixels of a finished portrait per pixel of the original image."""
FACE_WIDTH = 91.0
"""Width of the face in portrait pixels, from cheek to cheek."""


def _points(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 2)


# fmt: off
OUTER_TOP = _points(201.8, 139.6, 204.0, 139.4, 207.2, 139.3, 211.2, 139.3, 217.1, 139.4,
                    223.6, 140.5, 230.2, 139.9, 236.1, 140.1, 240.0, 140.3, 242.9, 140.6,
                    245.0, 141.0)
INNER_TOP = _points(203.3, 139.9, 205.9, 140.1, 209.1, 140.7, 212.9, 141.5, 217.6, 142.4,
                    223.5, 143.2, 229.4, 142.9, 234.1, 142.3, 237.8, 141.8, 240.9, 141.6,
                    243.4, 141.5)
INNER_BOTTOM = _points(203.3, 139.9, 206.4, 143.2, 209.0, 145.5, 212.6, 147.7, 217.3, 149.3,
                       223.0, 150.1, 228.6, 149.7, 233.3, 148.5, 237.1, 146.6, 239.9, 144.6,
                       243.4, 141.5)
OUTER_BOTTOM = _points(201.8, 139.6, 203.9, 143.4, 206.7, 147.4, 210.8, 151.1, 216.2, 153.5,
                       222.7, 154.6, 229.2, 154.2, 234.7, 152.2, 239.2, 148.9, 242.5, 145.0,
                       245.0, 141.0)
LIDS_TOP = (_points(195.2, 100.9, 197.2, 99.2, 199.4, 98.1, 202.8, 97.6, 206.3, 98.1,
                    209.7, 99.9, 212.2, 102.3, 213.3, 103.7),
            _points(237.0, 104.9, 238.4, 103.7, 241.2, 101.6, 244.7, 100.0, 248.3, 99.7,
                    251.9, 100.6, 253.9, 102.1, 255.8, 104.3))
LIDS_BOTTOM = (_points(195.2, 100.9, 197.9, 103.0, 200.1, 103.8, 203.4, 104.3, 206.8, 104.3,
                       210.1, 104.0, 212.2, 103.9, 213.3, 103.7),
               _points(237.0, 104.9, 238.0, 105.3, 240.2, 105.6, 243.3, 106.2, 246.6, 106.7,
                       250.0, 106.6, 252.5, 106.1, 255.8, 104.3))
JAW = _points(179.4, 110.0, 179.3, 118.9, 179.8, 128.8, 181.6, 139.4, 184.9, 148.3,
              189.1, 155.3, 194.9, 162.0, 199.9, 167.3, 205.4, 172.1, 212.2, 175.7,
              221.3, 177.4, 230.4, 176.9, 237.7, 174.1, 243.8, 170.0, 249.5, 165.4,
              255.9, 159.4, 260.8, 152.9, 265.1, 144.4, 268.0, 134.1, 269.5, 124.4,
              270.2, 115.5)
_SURE_BACKGROUND_OUTSIDE = _points(
    150, 10, 300, 10, 312, 90, 290, 140, 310, 200, 345, 240, 372, 300, 385, 340, 512, 340,
    512, 512, 10, 512, 15, 380, 30, 270, 90, 200, 140, 140, 140, 60)
_SURE_PERSON = (
    _points(190, 35, 240, 25, 280, 50, 290, 90, 268, 125, 250, 178, 290, 235, 338, 275,
            350, 345, 340, 512, 40, 512, 38, 330, 80, 245, 128, 200, 187, 152, 168, 95),
    _points(300, 440, 340, 370, 430, 355, 480, 410, 490, 512, 300, 512))
_FOREHEAD = _points(268, 104, 266, 88, 247, 83, 220, 80, 191, 75, 184, 74, 183, 90)
_NECK = _points(186, 145, 186, 178, 200, 187, 222, 190, 252, 186, 256, 160)
# fmt: on


@lru_cache(maxsize=1)
def _cut_out() -> tuple[np.ndarray, np.ndarray]:
    """The astronaut, uint8 (512, 512, 3) RGB, and the mask of the person in front of the wall,
    0..1."""
    from skimage.data import astronaut

    image = astronaut()
    mask = np.full((SIZE, SIZE), cv2.GC_BGD, np.uint8)
    cv2.fillPoly(mask, [_SURE_BACKGROUND_OUTSIDE.astype(np.int32)], cv2.GC_PR_FGD)
    for polygon in _SURE_PERSON:
        cv2.fillPoly(mask, [polygon.astype(np.int32)], cv2.GC_FGD)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(1)
    cv2.grabCut(image, mask, None, *models, 4, cv2.GC_INIT_WITH_MASK)
    person = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(person)
    person[stats[labels, cv2.CC_STAT_AREA] < 2000] = 0
    alpha = cv2.GaussianBlur(cv2.erode(person, np.ones((2, 2))).astype(np.float32), (0, 0), 0.9)
    return image, alpha


def _soft(polygon: np.ndarray, sigma: float = 1.2) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 255)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), sigma)


def lips_outline() -> np.ndarray:
    return np.concatenate([OUTER_TOP, OUTER_BOTTOM[::-1]])


def _recolour(look: Look) -> np.ndarray:
    """float32 (512, 512, 3) RGB 0..1 with the look's skin, hair, lips and suit."""
    image, alpha = _cut_out()
    rgb = image.astype(np.float32) / 255
    skin = np.maximum(_soft(np.concatenate([JAW, _FOREHEAD])), _soft(_NECK))
    gap = _soft(np.concatenate([INNER_TOP, INNER_BOTTOM[::-1]]), 0.6)
    lips = np.clip(_soft(lips_outline(), 0.7) - gap, 0, 1)
    rows = np.arange(SIZE, dtype=np.float32)[:, None]
    hair = alpha * (1 - skin) * np.clip((140 - rows) / 10, 0, 1)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    skin = skin * (1 - gap)
    for mask, (light, a, b) in ((skin, look.skin), (hair, look.hair)):
        lab[..., 0] *= 1 + mask * (light - 1)
        lab[..., 1] += mask * a
        lab[..., 2] += mask * b
    lab[..., 1] += lips * look.lips
    lab[..., 0] -= lips * 0.6 * look.lips
    lab[..., 0] *= 1 - look.stubble * _beard(lips + gap)
    rgb = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hue_distance = np.abs((hsv[..., 0] - 12 + 180) % 360 - 180)
    suit = np.clip((34 - hue_distance) / 12, 0, 1) * np.clip(hsv[..., 1] * 3 - 1.2, 0, 1)
    suit *= alpha * np.clip((rows - 190) / 15, 0, 1)
    turned = hsv.copy()
    turned[..., 0] = (hsv[..., 0] + look.suit_hue) % 360
    turned[..., 1] *= 0.75
    turned[..., 2] *= look.suit_light
    turned = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB)
    return rgb + suit[..., None] * (turned - rgb) if look.suit_hue else rgb


def _beard(mouth: np.ndarray) -> np.ndarray:
    """Short strands of hair on jaw, chin and upper lip, 0..1."""
    band = _soft(np.concatenate([JAW[3:18], [[258, 140], [240, 131], [207, 130], [190, 139]]]), 3)
    bare = _soft(_points(190, 128, 204, 128, 203, 141, 208, 152, 195, 150), 4)
    bare += _soft(_points(258, 129, 243, 129, 244, 141, 239, 152, 254, 152), 4)
    noise = np.random.default_rng(5).random((SIZE, SIZE)).astype(np.float32)
    strands = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.6, sigmaY=0.8)
    strands = np.clip((strands - 0.5) * 1.6 + 0.8, 0.5, 1.1)
    near_lips = np.clip(cv2.GaussianBlur(np.clip(mouth, 0, 1), (0, 0), 2.0) * 1.6, 0, 1)
    return np.clip(band - 0.7 * bare, 0, 1) * strands * (1 - near_lips) * 0.9


def _bumps(look: Look) -> list[tuple[float, float, float, float, float, float, float, float]]:
    """Smooth local changes: centre x, y; reach x, y; growth in x, y; shift in x, y."""
    eyes = LIDS_TOP[0].mean(axis=0), LIDS_TOP[1].mean(axis=0)
    far, size = look.eyes_apart, look.eye_size
    return [
        (223, 158, 40, 26, look.jaw, 1, 0, 0),
        (223, 126, 12, 11, look.nose, 1 + 0.4 * (look.nose - 1), 0, 0),
        (eyes[0][0], eyes[0][1], 13, 10, size, size, -far, 0),
        (eyes[1][0], eyes[1][1], 13, 10, size, size, far, 0),
        (222, 178, 40, 18, 1, 1, 0, look.chin),
        (225, 28, 70, 30, 1, 1, 0, -look.hair_up),
        (160, 85, 26, 40, 1, 1, -0.8 * look.hair_up, 0),
        (292, 85, 26, 40, 1, 1, 0.8 * look.hair_up, 0),
    ]


def _displacement(look: Look, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the reshaped image at x, y comes from, relative to x, y (portrait pixels)."""
    dx, dy = np.zeros_like(x), np.zeros_like(y)
    for cx, cy, rx, ry, gx, gy, sx, sy in _bumps(look):
        near = np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
        dx += near * ((1 / gx - 1) * (x - cx) - sx)
        dy += near * ((1 / gy - 1) * (y - cy) - sy)
    return dx, dy


@dataclass(frozen=True)
class Portrait:
    """A person in front of nothing.

    rgba: uint8 (512 * ZOOM, 512 * ZOOM, 4), colours multiplied by alpha.
    lips: outer top, inner top, inner bottom, outer bottom; lids: top and bottom per eye,
    from left to right in the picture; jaw: the contour. All (n, 2) float32 in pixels of
    `rgba`. glasses: uint8 like rgba, or None; they are already in `rgba`, `bare` is without.
    colours: the look's `colour_matrix`, already applied to `rgba`.
    """

    rgba: np.ndarray
    bare: np.ndarray
    glasses: np.ndarray | None
    lips: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    lids: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    jaw: np.ndarray
    colours: np.ndarray


def colour_matrix(look: Look) -> np.ndarray:
    """float32 (3, 4) RGB matrix on 0..255 of the image's age: saturation, sepia, contrast."""
    grey = np.full((3, 3), [0.299, 0.587, 0.114])
    matrix = grey + look.saturation * (np.eye(3) - grey)
    brown = np.array([1.09, 0.98, 0.8])[:, None] * grey
    matrix = (matrix + look.sepia * (brown - matrix)) * look.contrast
    offset = np.full((3, 1), 118 * (1 - look.contrast))
    return np.hstack([matrix, offset]).astype(np.float32)


@lru_cache(maxsize=16)
def portrait(look: Look) -> Portrait:
    """The finished cut-out of a look; cached, some 13 MB each."""
    side = round(SIZE * ZOOM)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    x, y = (x + 0.5) / ZOOM - 0.5, (y + 0.5) / ZOOM - 0.5
    dx, dy = _displacement(look, x, y)
    source = np.dstack([_recolour(look) * 255, _cut_out()[1] * 255]).astype(np.float32)
    big = cv2.remap(source, x + dx, y + dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    alpha = np.clip(big[..., 3:] / 255, 0, 1)
    rgb = big[..., :3]
    rgb = rgb + 0.7 * (rgb - cv2.GaussianBlur(rgb, (0, 0), 2.0))
    pores = np.random.default_rng(3).standard_normal((side, side, 1)).astype(np.float32)
    rgb = rgb + cv2.GaussianBlur(pores, (0, 0), 1.0)[..., None] * 9
    colours = colour_matrix(look)
    rgb = np.clip(cv2.transform(rgb, colours), 0, 255)
    bare = np.dstack([rgb * alpha, alpha * 255]).round().astype(np.uint8)

    def move(points: np.ndarray) -> np.ndarray:
        at = points.astype(np.float64)
        for _ in range(12):
            at = points - np.stack(_displacement(look, at[:, 0], at[:, 1]), axis=1)
        at = (at + 0.5) * ZOOM - 0.5
        if look.mirror:
            at[:, 0] = side - 1 - at[:, 0]
            at = at[::-1]
        return at.astype(np.float32)

    if look.mirror:
        bare = np.ascontiguousarray(bare[:, ::-1])
    lids = [(move(top), move(low)) for top, low in zip(LIDS_TOP, LIDS_BOTTOM, strict=True)]
    lids.sort(key=lambda pair: float(pair[0][0, 0]))
    jaw, glasses, rgba = move(JAW), None, bare
    if look.glasses:
        glasses = _draw_glasses(look.glasses, lids, jaw, side)
        rgba = over(glasses, bare)
    lips = (move(OUTER_TOP), move(INNER_TOP), move(INNER_BOTTOM), move(OUTER_BOTTOM))
    return Portrait(rgba, bare, glasses, lips, (lids[0], lids[1]), jaw, colours)


def over(front: np.ndarray, back: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 4) premultiplied `front` laid over `back`."""
    rest = (255 - front[..., 3:].astype(np.uint16)) * back
    return front + ((rest + 127) // 255).astype(np.uint8)


def _draw_glasses(
    kind: str, lids: list[tuple[np.ndarray, np.ndarray]], jaw: np.ndarray, side: int
) -> np.ndarray:
    """uint8 (side, side, 4) premultiplied frames of a pair of glasses on these eyes."""
    mask = np.zeros((side, side), np.uint8)
    centres = [np.concatenate(pair).mean(axis=0) + np.array([0, 2 * ZOOM]) for pair in lids]
    line = round(1.5 * ZOOM)
    for centre in centres:
        cx, cy = (int(v) for v in centre)
        if kind == "round":
            cv2.circle(mask, (cx, cy), round(14 * ZOOM), 255, line, cv2.LINE_AA)
        else:
            half = (round(15 * ZOOM), round(10 * ZOOM))
            corners = (cx - half[0], cy - half[1]), (cx + half[0], cy + half[1])
            cv2.rectangle(mask, *corners, 255, line, cv2.LINE_AA)
    reach = (14 if kind == "round" else 15) * ZOOM
    ends = sorted((jaw[0], jaw[-1]), key=lambda point: float(point[0]))
    for start, end in (
        (centres[0] + (reach, 0), centres[1] - (reach, 0)),
        (centres[0] - (reach, 0), ends[0] - (0, 9 * ZOOM)),
        (centres[1] + (reach, 0), ends[1] - (0, 9 * ZOOM)),
    ):
        cv2.line(mask, tuple(map(int, start)), tuple(map(int, end)), 255, line, cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.8)
    colour = np.array([34, 26, 24], np.float32) if kind == "round" else np.array([18, 18, 22])
    shade = (mask[..., None] / 255 * colour).astype(np.uint8)
    return np.dstack([shade, mask])
