"""A stage that is loaded once per file of tests, and a video of somebody who talks."""

from pathlib import Path

import pytest

from tasks.ingest.stage import IngestStage
from tests.support.ingest_stage import Made, make_stage, reset, write
from tests.support.portrait import moving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ingest")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> IngestStage:
    return make_stage(folder)


@pytest.fixture
def stage(loaded: IngestStage) -> IngestStage:
    return reset(loaded)


@pytest.fixture(scope="module")
def talking(folder: Path) -> Made:
    return write(folder, "talking", moving(45))
