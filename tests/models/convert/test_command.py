"""`python -m models.convert`: every known kind, back again, and clear refusals."""

import errno
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from models.audio.whisper_tokens import WhisperTokens
from models.convert.command import convert, main
from models.convert.unet import unet_to_reference
from models.files.errors import ModelFileError
from models.unet import LipSyncUNet
from tests.models.audio.test_whisper_tokens import openai_weights
from tests.support.small_models import PUBLISHED, shaken


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    unet = LipSyncUNet(**PUBLISHED)
    shaken(unet)
    path = tmp_path / "latentsync_unet.pt"
    torch.save(unet_to_reference(unet, 5), path)
    return path


def test_unet_there_and_back(checkpoint: Path, tmp_path: Path) -> None:
    assert main([str(checkpoint), str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert LipSyncUNet.from_pretrained(tmp_path / "out").config.motion_resolutions == [1, 2]
    assert main([str(tmp_path / "out"), str(tmp_path / "back.pt")]) == 0
    before = torch.load(checkpoint, weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "back.pt", weights_only=True)["state_dict"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_stable_diffusion(tmp_path: Path) -> None:
    theirs = UNet2DConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
    )
    save_file(theirs.state_dict(), tmp_path / "sd.safetensors")
    said = convert(tmp_path / "sd.safetensors", tmp_path / "out")
    assert "384 wide, text tokens 16" in said
    unet = LipSyncUNet.from_pretrained(tmp_path / "out")
    assert (unet.config.in_channels, unet.config.cross_attention_dim) == (13, 384)


def test_syncnet_there_and_back(tmp_path: Path) -> None:
    from models.syncnet.syncnet_v2 import SyncNet

    state = SyncNet().state_dict()
    torch.save(state, tmp_path / "syncnet_v2.model")
    convert(tmp_path / "syncnet_v2.model", tmp_path / "out")
    convert(tmp_path / "out", tmp_path / "back.model")
    after = torch.load(tmp_path / "back.model", weights_only=True)
    assert after.keys() == state.keys()
    assert all(torch.equal(after[key], state[key]) for key in state)


def test_whisper_there_and_back(tmp_path: Path) -> None:
    dims = {"n_audio_state": 16, "n_audio_layer": 2, "n_audio_head": 2}
    dims |= {"n_mels": 80, "n_audio_ctx": 50, "n_text_ctx": 9}
    weights = openai_weights(WhisperTokens(width=16, layers=2, heads=2, context=50))
    encoder = {f"encoder.{key}": value for key, value in weights.items()}
    state = encoder | {"decoder.ln.weight": torch.zeros(16)}
    torch.save({"dims": dims, "model_state_dict": state}, tmp_path / "tiny.pt")
    assert "the encoder only" in convert(tmp_path / "tiny.pt", tmp_path / "out")
    convert(tmp_path / "out", tmp_path / "back.pt")
    after = torch.load(tmp_path / "back.pt", weights_only=True)
    assert after["dims"] == {name: size for name, size in dims.items() if name != "n_text_ctx"}
    assert after["model_state_dict"].keys() == encoder.keys()
    assert all(torch.equal(after["model_state_dict"][key], encoder[key]) for key in encoder)
    loaded = WhisperTokens.from_file(tmp_path / "back.pt")
    assert loaded.width == 16


def whisper_content(**changes: object) -> dict:
    network = WhisperTokens(width=16, layers=2, heads=2, context=50)
    weights = {f"encoder.{key}": value for key, value in openai_weights(network).items()}
    dims = {"n_audio_state": 16, "n_audio_layer": 2, "n_audio_head": 2, "n_mels": 80}
    return {"dims": {**dims, "n_audio_ctx": 50, **changes}, "model_state_dict": weights}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_audio_head": 3}, "width 16 is not even or not a multiple of its 3 heads"),
        ({"n_audio_head": 0}, "heads is 0 where a positive"),
        ({"n_audio_layer": "2"}, "layers is '2' where a positive"),
        ({"n_audio_state": 15, "n_audio_head": 3}, "width 15 is not even"),
        ({"n_audio_layer": 1}, "says layers 1, its weights have 2"),
        ({"n_audio_ctx": 1 << 60}, "says context 1152921504606846976, its weights have 50"),
        ({"extra": "encoder.blocks.0"}, "does not fit WhisperEncoder"),
        ({"extra": "encoder.blocks.0.attn"}, "does not fit WhisperEncoder"),
        ({"extra": "encoder.blocks"}, "does not fit WhisperEncoder"),
    ],
)
def test_whispers_that_are_none(
    changes: dict[str, object], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = whisper_content(**changes)
    if "extra" in changes:
        content["model_state_dict"][changes["extra"]] = torch.zeros(1)
    torch.save(content, tmp_path / "tiny.pt")
    assert main([str(tmp_path / "tiny.pt"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert re.search(match, said)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["layers.0", "layers.0.attn", "layers.0.bread.weight", "layers."])
def test_a_whisper_folder_with_an_unknown_entry(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(whisper_content(), tmp_path / "tiny.pt")
    convert(tmp_path / "tiny.pt", tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    save_file(load_file(file) | {key: torch.zeros(1)}, file)
    assert main([str(tmp_path / "out"), str(tmp_path / "back.pt")]) == 2
    assert f"unknown entry {key}\n" in capsys.readouterr().err
    assert not (tmp_path / "back.pt").exists()


def test_stable_diffusion_of_impossible_widths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unet = LipSyncUNet(**{**PUBLISHED, "in_channels": 4, "motion_resolutions": []})
    weights = {key: value.clone() for key, value in unet.state_dict().items()}
    for key, value in weights.items():
        weights[key] = value[:20] if key.startswith("down_blocks.0.resnets.0.conv1") else value
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, tmp_path / "sd.safetensors"
    )
    assert main([str(tmp_path / "sd.safetensors"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"model file {tmp_path / 'sd.safetensors'}: ")
    assert said.count("\n") == 1


class Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


def hostile(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {"conv_in.weight": Hostile()}}))


def hostile_zip(path: Path) -> None:
    torch.save({"state_dict": {"conv_in.weight": Hostile()}}, path)


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"conv_in.weight": torch.zeros(100, 100)}}, buffer)
    path.write_bytes(buffer.getvalue()[:-2000])


def unknown(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, path)


def no_weights(path: Path) -> None:
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"<html>"), "web page"),
        (hostile, "refused|not a weight file"),
        (hostile_zip, "refused"),
        (truncated, "truncated"),
        (unknown, "of no known kind"),
        (no_weights, "holds list"),
    ],
)
def test_one_sentence_for_each_bad_file(
    make: object,
    match: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pt"
    make(path)  # type: ignore[operator]
    with pytest.raises(ModelFileError, match=match):
        convert(path, tmp_path / "out")
    assert main([str(path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "owned").exists()


def test_mismatched_unet_leaves_nothing_behind(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"].pop("conv_norm_out.weight")
    torch.save(content, checkpoint)
    with pytest.raises(ModelFileError, match=r"latentsync_unet\.pt.*conv_norm_out"):
        convert(checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_existing_targets_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(ModelFileError, match="already exists"):
        convert(checkpoint, target)
    assert (target / "mine.txt").read_text() == "mine"


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ModelFileError, match="not a converted model"):
        convert(tmp_path / "a", tmp_path / "a.pt")
    for text, kind in (("[]", "list"), ("7", "int"), ("null", "NoneType")):
        (tmp_path / "a" / "config.json").write_text(text)
        with pytest.raises(ModelFileError, match=f"holds a {kind} where a JSON object"):
            convert(tmp_path / "a", tmp_path / "a.pt")
    (tmp_path / "a" / "config.json").write_text('{"_class_name": "LipSyncUNet"}')
    with pytest.raises(ModelFileError, match="is not there"):
        convert(tmp_path / "a", tmp_path / "a.pt")
    (tmp_path / "a" / "config.json").write_text('{"kind": "bread"}')
    with pytest.raises(ModelFileError, match="cannot be written as a checkpoint"):
        convert(tmp_path / "a", tmp_path / "a.pt")


def test_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "models.convert", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert "latentsync_unet.pt" in done.stdout


def spoiled(checkpoint: Path, kind: str) -> None:
    """Weights that a reader must not take."""
    content = torch.load(checkpoint, weights_only=True)
    weights = content["state_dict"]
    value = weights["conv_in.weight"]
    weights["conv_in.weight"] = {
        "nan": torch.full_like(value, torch.nan),
        "int8": value.to(torch.int8),
        "complex": value.to(torch.complex64),
        "sparse": value.to_sparse(),
        "meta": value.to("meta"),
        "stretched": torch.zeros(1).expand(1 << 33, 4, 3, 3),
    }[kind]
    torch.save(content, checkpoint)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("nan", "values that are not numbers under 'conv_in.weight'"),
        ("int8", "torch.int8 under 'conv_in.weight'"),
        ("complex", "torch.complex64 under 'conv_in.weight'"),
        ("sparse", "a torch.sparse_coo tensor under 'conv_in.weight'"),
        ("meta", "values elsewhere under 'conv_in.weight'"),
        ("stretched", "claims 309237645312 values for 'conv_in.weight' and holds 1"),
    ],
)
def test_values_that_are_no_weights(
    kind: str, match: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled(checkpoint, kind)
    assert main([str(checkpoint), str(tmp_path / "out")]) == 2
    assert match in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_flipped_bits_are_found(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(checkpoint.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    checkpoint.write_bytes(content)
    assert main([str(checkpoint), str(tmp_path / "out")]) == 2
    assert "the checksum of its part" in capsys.readouterr().err


def test_entries_that_share_memory_convert(tmp_path: Path) -> None:
    from models.syncnet.syncnet_v2 import SyncNet

    state = SyncNet().state_dict()
    state["netcnnaud.1.running_var"] = state["netcnnaud.1.running_mean"]
    torch.save(state, tmp_path / "v2.model")
    convert(tmp_path / "v2.model", tmp_path / "out")
    assert len(load_file(tmp_path / "out" / "model.safetensors")) == len(state)


@pytest.mark.parametrize("kind", ["stable_syncnet", "syncnet"])
def test_weights_of_another_network_are_not_written_back(kind: str, tmp_path: Path) -> None:
    from models.syncnet.stable import pixel_config

    (tmp_path / "out").mkdir()
    config: dict[str, object] = {"kind": kind}
    if kind == "stable_syncnet":
        config |= pixel_config()
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    save_file({"netcnnlip.0.weight": torch.zeros(2)}, tmp_path / "out" / "model.safetensors")
    with pytest.raises(ModelFileError, match="does not fit"):
        convert(tmp_path / "out", tmp_path / "back.pt")


@pytest.mark.parametrize(
    ("key", "value"), [("layers_per_block", 10**9), ("block_out_channels", [10**30])]
)
def test_sizes_that_nobody_can_build(
    key: str, value: object, checkpoint: Path, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "out")
    file = tmp_path / "out" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(ModelFileError, match="describes a network that cannot be built"):
        convert(tmp_path / "out", tmp_path / "back.pt")


@pytest.mark.parametrize(
    ("error", "code", "match"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (RuntimeError("unexpected pos 1031936 vs 1031888"), 2, "the disk is full"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was written"),
    ],
)
def test_a_full_disk_and_an_interrupt(
    error: BaseException, code: int, match: str, checkpoint: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    convert(checkpoint, tmp_path / "out")

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(torch, "save", fails)
    assert main([str(tmp_path / "out"), str(tmp_path / "back.pt")]) == code
    assert match in capsys.readouterr().err
    assert not (tmp_path / "back.pt").exists()
