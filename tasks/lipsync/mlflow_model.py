"""The registered model as MLflow runs it: code in this file, weights in safetensors.

MLflow keeps this file itself instead of a pickled object (models-from-code), with the
packages `models`, `datasets` and `tasks` next to it, and runs it to load the model:

    model = mlflow.pyfunc.load_model("models:/latentsync@champion")
    model.predict(pandas.DataFrame([{"video": "in.mp4", "audio": "speech.wav",
                                     "output": "out.mp4"}]), params={"steps": 20})
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from models.files.errors import ModelFileError
from tasks.lipsync.video import lip_sync_video
from tasks.weights.bundle import bundle_digest, read_bundle
from tasks.weights.signing import check_folder

COLUMNS = ("video", "audio", "output")


class LipSyncModel(PythonModel):
    """Lip-syncs the videos of a table and reports the result of each."""

    def load_context(self, context: PythonModelContext) -> None:
        """Check the bundle against the registered digest, and its signature where one is asked for.

        Raises:
            ModelFileError: the files are not those that were registered or signed.
        """
        self.bundle = Path(context.artifacts["bundle"])
        read_bundle(self.bundle)
        check_folder(self.bundle)
        expected = context.model_config["bundle_digest"]
        found = bundle_digest(self.bundle)
        if found != expected:
            raise ModelFileError(
                f"the model files in {self.bundle} are not those that were registered: digest "
                f"{found[:12]}, expected {expected[:12]}; register the model again"
            )

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One lip-synced video per row.

        Args:
            context: given by MLflow.
            model_input: columns video, audio and output: paths.
            params: options of `lip_sync_video`; `fps` 0 keeps the video's.

        Returns:
            The paths with the columns frames and faces_found.
        """

        missing = [name for name in COLUMNS if name not in model_input]
        if missing:
            raise ValueError(f"the table needs the columns {COLUMNS}, but {missing} are missing")
        options = dict(params or {})
        options["fps"] = options.get("fps") or None
        rows = []
        for row in model_input[list(COLUMNS)].to_dict("records"):
            result = lip_sync_video(
                Path(row["video"]),
                Path(row["audio"]),
                Path(row["output"]),
                self.bundle,
                **options,
            )
            rows.append({**row, "frames": result.frames, "faces_found": result.faces_found})
        return pd.DataFrame(rows)


mlflow.models.set_model(LipSyncModel())
