"""mediapipe's face models used separately: landmarks in a region, faces in a picture.

The models come with mediapipe's wheel. Its FaceMesh solution ties them into one graph that
copies and searches whole frames; here the caller gives the region to look at, and only that
is sampled. With the same region the landmarks are FaceMesh's own, to a hundredth of a pixel.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

INPUT_SIDE = 192
"""Side of the input of both the landmark model and the full-range detector, pixels."""
REGION_SCALE = 1.5
"""Side of the region around a face over the longer side of its box, as in FaceMesh."""
EYES = (33, 263)
"""Outer corners of the eyes, which show how far a face is rolled."""

LANDMARKS_GRAPH = """
input_stream: "image"
input_stream: "roi"
output_stream: "out"
num_threads: 1
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:with_attention"
  node_options {
    [type.googleapis.com/mediapipe.ConstantSidePacketCalculatorOptions] {
      packet { bool_value: true }
    }
  }
}
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:out"
}
"""
DETECTION_GRAPH = """
input_stream: "image"
output_stream: "out"
num_threads: 1
node {
  calculator: "%s"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:out"
}
"""
SHORT_RANGE, FULL_RANGE = "FaceDetectionShortRangeCpu", "FaceDetectionFullRangeCpu"
"""Detectors: for faces that fill at least an eighth of the picture's longer side, in 1.8 ms, and
for those that fill a fourteenth, in 5.5 ms."""

POINT = np.dtype(
    [("head", "u1", 3), ("x", "<f4"), ("xy", "u1"), ("y", "<f4"), ("yz", "u1"), ("z", "<f4")]
)
"""A NormalizedLandmark as it is serialised: tags of one byte and three floats."""


@dataclass(frozen=True)
class Region:
    """A square that may be rotated."""

    x: float
    """Centre, pixels."""
    y: float
    side: float
    roll: float
    """Radians, clockwise as seen."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of its bounding box."""
        half = self.side / 2 * (abs(np.cos(self.roll)) + abs(np.sin(self.roll))) + 1
        return self.x - half, self.y - half, self.x + half, self.y + half


def region_of(landmarks: np.ndarray) -> Region:
    """The region in which to look for a face with landmarks (n, 2) in the next frame."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    eyes = landmarks[EYES[1]] - landmarks[EYES[0]]
    x, y = (low + high) / 2
    side = float((high - low).max()) * REGION_SCALE
    return Region(float(x), float(y), side, float(np.arctan2(eyes[1], eyes[0])))


class _Graph:
    """A running mediapipe graph that takes packets and gives at most one for each."""

    def __init__(self, text: str) -> None:
        import mediapipe
        from google.protobuf import text_format

        # Importing them registers their options, which the graph's text needs.
        from mediapipe.calculators.core import constant_side_packet_calculator_pb2  # noqa: F401
        from mediapipe.framework import calculator_pb2
        from mediapipe.python import packet_creator
        from mediapipe.python._framework_bindings import (
            calculator_graph,
            image_frame,
            resource_util,
        )

        resource_util.set_resource_dir(str(Path(mediapipe.__file__).parents[1]))
        self.create: Any = packet_creator
        self._format = image_frame.ImageFormat.SRGB
        config = text_format.Parse(text, calculator_pb2.CalculatorGraphConfig())
        self._time = 0
        self._out: Any = None
        self._warm = False
        self._graph: Any = calculator_graph.CalculatorGraph(graph_config=config)
        self._graph.observe_output_stream("out", self._receive)
        self._graph.start_run()

    def _receive(self, _: str, packet: Any) -> None:
        self._out = packet

    def run(self, rgb: np.ndarray, **more: Any) -> Any:
        """The output packet for a picture and the graph's other inputs, or None."""
        image = self.create.create_image_frame(image_format=self._format, data=rgb)
        self._time += 1
        self._out = None
        for name, packet in {"image": image, **more}.items():
            self._graph.add_packet_to_input_stream(name, packet.at(self._time))
        self._graph.wait_until_idle()
        return self._out

    def close(self) -> None:
        self._graph.close()


class _Model:
    """A warmed-up graph, since models write notes to stderr at their first picture."""

    def __init__(self, text: str) -> None:
        with quiet_stderr():
            self._graph = _Graph(text)
            self._warm_up()

    def _warm_up(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Free the model."""
        self._graph.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LandmarkModel(_Model):
    """Finds the 478 points of one face in a given region; stateless."""

    def __init__(self) -> None:
        super().__init__(LANDMARKS_GRAPH)

    def _warm_up(self) -> None:
        from mediapipe.framework.formats import rect_pb2

        whole = rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1, height=1)
        self._whole = self._graph.create.create_proto(whole)
        self._graph.run(np.zeros((INPUT_SIDE, INPUT_SIDE, 3), np.uint8), roi=self._whole)

    def points(self, rgb: np.ndarray, region: Region) -> np.ndarray | None:
        """Landmarks float32 (478, 2) in pixels of uint8 (h, w, 3); None if no face is there."""
        found = self._graph.run(patch_of(rgb, region), roi=self._whole)
        if found is None:
            return None
        cos, sin = np.cos(region.roll), np.sin(region.roll)
        back = np.array([[cos, -sin], [sin, cos]]) * region.side
        shares = _points(found) - 0.5
        return (shares @ back.T + np.array([region.x, region.y])).astype(np.float32)


def patch_of(rgb: np.ndarray, region: Region) -> np.ndarray:
    """A region of uint8 (h, w, 3), turned upright and scaled to `INPUT_SIDE`."""
    cos, sin = np.cos(region.roll), np.sin(region.roll)
    turn = np.array([[cos, sin], [-sin, cos]]) * INPUT_SIDE / region.side
    matrix = np.column_stack([turn, INPUT_SIDE / 2 - turn @ np.array([region.x, region.y])])
    return cv2.warpAffine(
        rgb,
        matrix,
        (INPUT_SIDE, INPUT_SIDE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _points(packet: Any) -> np.ndarray:
    """x, y of a NormalizedLandmarkList, float64 (n, 2)."""
    from mediapipe.python import packet_getter
    from mediapipe.python._framework_bindings import _packet_getter

    # Reading the message as an array takes a tenth of the time of reading each point.
    data = _packet_getter._get_serialized_proto(packet)
    if len(data) % POINT.itemsize == 0:
        rows = np.frombuffer(data, POINT)
        if (rows["head"] == rows["head"][0]).all() and bytes(rows["head"][0]) == b"\n\x0f\r":
            return np.stack([rows["x"], rows["y"]], axis=1).astype(np.float64)
    found = packet_getter.get_proto(packet).landmark
    return np.array([(point.x, point.y) for point in found], np.float64)


class DetectionModel(_Model):
    """Finds faces in a picture.

    Args:
        kind: `SHORT_RANGE` or `FULL_RANGE`.
        min_confidence: 0 to 1.
    """

    def __init__(self, kind: str = SHORT_RANGE, min_confidence: float = 0.5) -> None:
        self._least = min_confidence
        super().__init__(DETECTION_GRAPH % kind)

    def _warm_up(self) -> None:
        self._graph.run(np.zeros((INPUT_SIDE, INPUT_SIDE, 3), np.uint8))

    def regions(self, rgb: np.ndarray) -> list[Region]:
        """Regions of faces in uint8 (h, w, 3), the most confident first."""
        return [region for _, region in self.scored(rgb)]

    def scored(self, rgb: np.ndarray) -> list[tuple[float, Region]]:
        """The same with how confident the detector is of each, 0 to 1."""
        from mediapipe.python import packet_getter

        found = self._graph.run(np.ascontiguousarray(rgb))
        if found is None:
            return []
        detections = sorted(packet_getter.get_proto_list(found), key=lambda each: -each.score[0])
        return [
            (each.score[0], _region(each.location_data, rgb.shape[1], rgb.shape[0]))
            for each in detections
            if each.score[0] >= self._least
        ]


def _region(place: Any, width: int, height: int) -> Region:
    """The region around a detected face, rolled as its eyes are."""
    box = place.relative_bounding_box
    first, second = place.relative_keypoints[:2]
    roll = np.arctan2((second.y - first.y) * height, (second.x - first.x) * width)
    side = REGION_SCALE * max(box.width * width, box.height * height)
    x, y = (box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height
    return Region(float(x), float(y), float(side), float(roll))


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ libraries write to stderr; it is shown if something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
