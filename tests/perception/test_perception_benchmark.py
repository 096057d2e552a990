"""benchmarks/perception.py at its small size: it runs, and a longer video needs no more memory."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "perception.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("perception_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_longer_video_needs_no_more_memory(benchmark, tmp_path, monkeypatch, capsys):
    words = [
        "perception.py",
        "--tiny",
        "--objects",
        "2",
        "--frames",
        "8",
        "24",
        "--repeats",
        "1",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    result = json.loads((tmp_path / "perception.json").read_text())
    short, long = result["videos"]
    assert (short["frames"], long["frames"], result["window"]) == (8, 24, 4)
    assert long["MiB"] < 1.05 * short["MiB"]
    assert [row["objects"] for row in result["pictures"]] == [2]
    table = (tmp_path / "perception.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert "|2|24|" in table


def test_the_shapes_are_those_of_the_public_models(benchmark, monkeypatch):
    """224.4 M parameters is what the makers of SAM 2.1 large say; Grounding DINO base is 0.93 GB in float32."""
    import torch

    from throughmask.perception.real.weights import GROUNDING_DINO, LARGE, SAM2

    def built(shape, dtype, make):
        with torch.device("meta"):
            return make()

    monkeypatch.setattr(benchmark, "built", built)
    sam = benchmark.count(benchmark.video_model(benchmark.TRUE, torch.float32))
    dino = benchmark.count(benchmark.detector_of(benchmark.TRUE).model)
    assert sam == 224_446_642
    assert 4e-9 * sam == pytest.approx(LARGE[SAM2], abs=0.01)
    assert 4e-9 * dino == pytest.approx(LARGE[GROUNDING_DINO], abs=0.01)
