"""Numbers of FaceMesh points that more than one module needs."""

OUTER_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
"""The outer lip line."""
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The outline of the face from the top of the forehead round; ears and hair lie outside."""
STEADY = (
    33, 133, 362, 263, 70, 105, 107, 336, 334, 300, 168, 6, 197, 195, 5, 4, 98, 327, 117, 346,
)  # fmt: skip
"""Points inside the outline that hardly move with speech: eyes, brows, nose and cheekbones."""
SHAPE = (*FACE_OVAL, *STEADY)
"""Where a face lies and how it is turned."""
INNER_LIPS = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
"""The inner lip line."""
