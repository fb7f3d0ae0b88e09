"""AV-HuBERT's files: both of fairseq's layouts, hostile ones, foreign entries, and ours."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.audio.avhubert_files import from_fairseq, is_fairseq, read_avhubert
from models.audio.avhubert_tokens import AVHubertTokens
from models.convert.command import main
from models.files.errors import ModelFileError
from models.files.state_dict import read_checkpoint
from tests.parity import CASES
from tests.parity.draw import draw_weights, read_case
from tests.support.fairseq_file import write_fairseq

CASE, ARRAYS = read_case(CASES, "avhubert_audio")
CONFIG: dict[str, Any] = CASE["config"]


def entries() -> dict[str, torch.Tensor]:
    """All entries of a whole checkpoint, also those that sound does not need."""
    return draw_weights(CASE["salt"], {**CASE["state_dict"], **CASE["unused_state_dict"]})


def outputs(path: Path) -> torch.Tensor:
    return AVHubertTokens.from_file(path, exact=True).outputs(ARRAYS["wav"])


@pytest.mark.parametrize("fine_tuned", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_both_layouts_give_the_same_encoder(tmp_path: Path, fine_tuned: bool, half: bool) -> None:
    weights = {key: value.half() if half else value for key, value in entries().items()}
    path = write_fairseq(tmp_path / "a.pt", weights, CONFIG, fine_tuned=fine_tuned)
    assert is_fairseq(path)
    found = outputs(path)
    assert found.dtype == torch.float32
    expected = torch.from_numpy(ARRAYS["last"])
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < (0.02 if half else 1e-4)


def test_all_published_names_and_shapes_are_known() -> None:
    shapes = {**CASE["full_state_dict"], **CASE["full_unused_state_dict"]}
    weights = {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}
    task = {"normalize": True, "stack_order_audio": 4}
    content = {"cfg": {"model": CASE["full_config"], "task": task}, "model": weights}
    sizes, found = from_fairseq(content, Path("base_vox_iter5.pt"))
    assert (sizes["width"], sizes["layers"], sizes["heads"], sizes["inner"]) == (768, 12, 12, 3072)
    with torch.device("meta"):
        own = AVHubertTokens(**sizes).state_dict()
    assert {key: value.shape for key, value in own.items()} == {
        key: value.shape for key, value in found.items()
    }


class Bomb:
    """Runs a command when it is unpickled by anybody who is careless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.path}",)


def test_a_hostile_file_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    path = write_fairseq(tmp_path / "a.pt", entries(), CONFIG, extra_state={"best": Bomb(trace)})
    with pytest.raises(ModelFileError, match=r"holds more than tensors \(.*system.*\) and was"):
        read_avhubert(path)
    assert not trace.exists()


def test_what_is_allowed_here_is_refused_elsewhere(tmp_path: Path) -> None:
    path = write_fairseq(tmp_path / "a.pt", entries(), CONFIG)
    read_avhubert(path)
    with pytest.raises(ModelFileError, match=r"fairseq\.data\.dictionary\.Dictionary"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("mask_embedding", "has the entry mask_embedding, which no AV-HuBERT has"),
        ("encoder.layers.0.self_attn.k_proj.scale", "k_proj.scale, which no AV-HuBERT has"),
        ("encoder.layers.9.fc1.weight", "weights are missing and 1 are unknown"),
        ("feature_extractor_audio.proj.gain", "proj.gain, which no AV-HuBERT has"),
    ],
)
def test_foreign_entries_are_errors(tmp_path: Path, key: str, said: str) -> None:
    path = write_fairseq(tmp_path / "a.pt", {**entries(), key: torch.zeros(64)}, CONFIG)
    with pytest.raises(ModelFileError, match=said):
        AVHubertTokens.from_file(path)


@pytest.mark.parametrize(
    "key", ["encoder.layer_norm.weight", "encoder.layers.3.fc2.bias", "post_extract_proj.weight"]
)
def test_missing_entries_are_errors(tmp_path: Path, key: str) -> None:
    weights = entries()
    del weights[key]
    path = write_fairseq(tmp_path / "a.pt", weights, CONFIG)
    with pytest.raises(ModelFileError, match="lacks 1 entries of an AV-HuBERT encoder"):
        read_avhubert(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder_layers": 3}, "says layers 3, its weights have 4"),
        ({"encoder_layers": 5}, "lacks 16 entries"),
        ({"encoder_ffn_embed_dim": 256}, "says inner 256, its weights have 160"),
        ({"encoder_attention_heads": 5}, "5 heads.*do not divide its width 64"),
        ({"encoder_attention_heads": None}, "encoder_attention_heads None"),
        ({"conv_pos": 64}, "says positions 64, its weights have 128"),
        ({"modality_fuse": "add"}, "modality_fuse 'add'.*'concat' was expected"),
        ({"audio_feat_dim": 80}, "audio_feat_dim 80.*104 was expected"),
        ({"activation_fn": "relu"}, "activation_fn 'relu'"),
        ({"layer_norm_first": "yes"}, "'yes' for pre_norm"),
    ],
)
def test_configurations_that_contradict_the_weights(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = write_fairseq(tmp_path / "a.pt", entries(), {**CONFIG, **changes})
    with pytest.raises(ModelFileError, match=said):
        read_avhubert(path)


def test_how_many_rows_make_a_frame_must_be_said(tmp_path: Path) -> None:
    path = write_fairseq(tmp_path / "a.pt", entries(), CONFIG, task={"stack_order_audio": 1})
    with pytest.raises(ModelFileError, match=r"stack_order_audio 1.*4 was expected"):
        read_avhubert(path)


def test_norm_order_is_the_files_own_and_fairseqs_default_where_it_is_absent(
    tmp_path: Path,
) -> None:
    told = {name: value for name, value in CONFIG.items() if name != "layer_norm_first"}
    absent = read_avhubert(write_fairseq(tmp_path / "a.pt", entries(), told))[0]
    assert (absent["pre_norm"], absent["normalize"]) == (False, True)
    said = read_avhubert(write_fairseq(tmp_path / "b.pt", entries(), CONFIG))[0]
    assert said["pre_norm"] is True


def test_converted_files_give_the_same_and_say_where_they_are_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_fairseq(tmp_path / "a.pt", entries(), CONFIG)
    assert main([str(path), str(tmp_path / "out")]) == 0
    assert "non-commercial research only" in capsys.readouterr().out
    assert torch.equal(outputs(tmp_path / "out"), outputs(path))
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert about["pre_norm"] is True
    assert len(about["source_sha256"]) == 64
    (tmp_path / "out" / "config.json").write_text(json.dumps({**about, "heads": 0}))
    with pytest.raises(ModelFileError, match=r"has heads 0 in its config\.json"):
        read_avhubert(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="not a converted AV-HuBERT encoder"):
        read_avhubert(tmp_path / "out")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "a.pt")
    assert not is_fairseq(tmp_path / "a.pt")
    with pytest.raises(ModelFileError, match="expected fairseq's 'cfg' and 'model'"):
        read_avhubert(tmp_path / "a.pt")
