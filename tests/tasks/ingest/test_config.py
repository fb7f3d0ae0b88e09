"""What stored results are known by."""

from dataclasses import replace

from tasks.ingest.config import IngestConfig


def test_what_was_stored_before_shots_were_a_choice_stays_valid() -> None:
    config = IngestConfig()
    assert "shots" not in config.key()
    assert "scorer_weights" not in config.key()
    assert replace(config, shots=False).key() == {**config.key(), "shots": False}
