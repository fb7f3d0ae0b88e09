"""Wrong, truncated and hostile model files each end in one sentence, and run nothing."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.files.errors import ModelFileError
from models.files.state_dict import load_weights, read_checkpoint, read_state_dict


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def assert_refused(path: Path, match: str) -> None:
    with pytest.raises(ModelFileError, match=match) as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "module", "model_state_dict"])
def test_weights_are_found_under_any_wrapper(wrapper: str | None, tmp_path: Path) -> None:
    weights = {"module.weight": torch.ones(2)}
    torch.save({wrapper: weights, "step": 1} if wrapper else weights, tmp_path / "a.pt")
    assert torch.equal(read_state_dict(tmp_path / "a.pt")["weight"], torch.ones(2))


def test_old_pickle_format_and_safetensors(tmp_path: Path) -> None:
    weights = {"weight": torch.arange(3.0)}
    torch.save(weights, tmp_path / "a.pkl", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "a.safetensors")
    for name in ("a.pkl", "a.safetensors"):
        assert torch.equal(read_state_dict(tmp_path / name)["weight"], weights["weight"])


@pytest.mark.parametrize("new_format", [True, False])
def test_hostile_pickles_run_nothing(new_format: bool, tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "made"
    torch.save({"a": Hostile(target)}, path, _use_new_zipfile_serialization=new_format)
    assert_refused(path, "holds more than tensors")
    path.write_bytes(pickle.dumps(Hostile(target)))
    assert_refused(path, "holds more than tensors")
    assert not target.exists()


def small_file(path: Path) -> bytes:
    """A checkpoint in the format of the suffix: zip, legacy or safetensors."""
    weights = {"weight": torch.randn(4, 3), "steps": torch.arange(3)}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=path.suffix == ".pt")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".pkl", ".safetensors"])
def test_truncated_anywhere(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    content = small_file(path)
    for keep in range(1, len(content)):
        path.write_bytes(content[:keep])
        assert_refused(path, "truncated")


def test_a_zip_whose_directory_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    content = bytearray(small_file(path))
    # The number of disks that the archive spans, in the zip64 locator.
    content[content.rindex(b"PK\x06\x07") + 16] = 9
    path.write_bytes(content)
    assert_refused(path, "truncated or not a weight file")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\x00\x01\x02" * 500, "truncated or not a weight file"),
        (b"just text that goes on for a while\n" * 20, "truncated or not a weight file"),
    ],
)
def test_other_files(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert_refused(path, match)


def test_missing_file_and_no_weights(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent.pt", "is not there")
    torch.save([1, 2], tmp_path / "list.pt")
    assert_refused(tmp_path / "list.pt", "holds list")
    torch.save({"lr": 0.1}, tmp_path / "odd.pt")
    assert_refused(tmp_path / "odd.pt", "no weights under 'lr'")
    assert read_checkpoint(tmp_path / "odd.pt") == {"lr": 0.1}


def test_every_key_and_shape_must_fit() -> None:
    path, layer = Path("x.pt"), nn.Linear(2, 3)
    weight, bias = torch.zeros(3, 2), torch.zeros(3)
    with pytest.raises(ModelFileError, match="1 weights are missing and 0 are unknown, first bias"):
        load_weights(layer, {"weight": weight}, path)
    with pytest.raises(ModelFileError, match="0 weights are missing and 1 are unknown, first more"):
        load_weights(layer, {"weight": weight, "bias": bias, "more": bias}, path)
    with pytest.raises(ModelFileError, match=r"bias has shape \(4,\) where \(3,\) was expected"):
        load_weights(layer, {"weight": weight, "bias": torch.zeros(4)}, path)


def test_half_precision_becomes_float32_and_meta_is_filled() -> None:
    with torch.device("meta"):
        layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weights = {
        key: torch.ones(value.shape).half()
        for key, value in layer.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    load_weights(layer, weights, Path("x.pt"))
    assert layer[0].weight.dtype == torch.float32
    assert torch.isfinite(layer.eval()(torch.ones(1, 2))).all()
