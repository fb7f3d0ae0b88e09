"""What the registered model takes and gives, as MLflow shows and checks it."""

from typing import Any

INPUTS = ("video", "audio", "output")
"""Columns of the table, all paths."""
OUTPUTS = (*(("string", name) for name in INPUTS), ("long", "frames"), ("long", "faces_found"))
PARAMS: dict[str, Any] = {
    "device": "cpu",
    "steps": 20,
    "guidance": 1.5,
    "seed": 1247,
    "reference": "",
    "fps": 0.0,
    "face": "auto",
    "length": "auto",
    "occlusion": "keep",
}
"""Parameters of a prediction and their defaults, those of lip-sync; `fps` 0 keeps the video's."""
TYPES = {str: "string", int: "long", float: "double"}


def model_signature() -> Any:
    """An `mlflow.models.ModelSignature`. MLflow ignores parameters that it does not name."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string", name) for name in INPUTS]),
        outputs=Schema([ColSpec(kind, name) for kind, name in OUTPUTS]),
        params=ParamSchema(
            [ParamSpec(name, TYPES[type(value)], value) for name, value in PARAMS.items()]
        ),
    )
