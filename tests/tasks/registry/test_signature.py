"""MLflow knows what the model takes: what it does not name would be ignored."""

import inspect

from tasks.lipsync.video import lip_sync_video
from tasks.registry.signature import INPUTS, OUTPUTS, PARAMS, model_signature
from tasks.registry.tracking import quiet


def test_parameters_are_those_of_lip_sync() -> None:
    own = inspect.signature(lip_sync_video).parameters
    for name, value in PARAMS.items():
        assert own[name].default == (value if name != "fps" else None), name
    with quiet():
        from tasks.lipsync.mlflow_model import COLUMNS
    assert COLUMNS == INPUTS


def test_the_signature_names_all_of_them() -> None:
    signature = model_signature()
    assert signature.inputs.input_names() == list(INPUTS)
    assert signature.outputs.input_names() == [name for _, name in OUTPUTS]
    assert {each.name: each.default for each in signature.params.params} == PARAMS
