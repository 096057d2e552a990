"""What the tests of training share: sizes, and reading a run's log."""

import json
from pathlib import Path

SIZE, FRAMES = (32, 32), 5


def losses_of(out: str | Path) -> list[float]:
    """The loss of every step, exactly as it was logged."""
    path = Path(out) / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    records = [line for line in lines if "loss" in line]
    assert [line["step"] for line in records] == list(range(1, len(records) + 1))
    return [line["loss"] for line in records]
