"""A bundle: both stages with one copy of what they share load as the checkpoints that they were made of."""

import json
import shutil

import pytest
import torch
from tiny_stages import last_latents

from throughmask.errors import SampleError
from throughmask.stages.bundle import make_bundle
from throughmask.stages.checkpoint import StageInfo
from throughmask.stages.init import PIPELINES, make_stage, save_stage


@pytest.mark.slow
def test_a_bundle_loads_as_its_checkpoints(folders, sample, tmp_path):
    make_bundle(tmp_path / "toys", folders["motion"], folders["paper"])
    assert sorted(path.name for path in (tmp_path / "toys" / "video").iterdir()) == [
        "model_index.json",
        "scheduler",
        "transformer",
    ]
    for stage, whole in (("motion", folders["motion"]), ("video", folders["paper"])):
        bundled = tmp_path / "toys" / stage
        assert StageInfo.read(bundled, stage) == StageInfo.read(whole, stage)
        latents = []
        for folder in (whole, bundled):
            pipeline = PIPELINES[stage].from_pretrained(folder)
            pipeline.set_progress_bar_config(disable=True)
            latents.append(last_latents(pipeline, sample, seed=1))
        assert torch.equal(*latents)


def test_a_tokenizer_that_was_used_is_the_same(folders, tmp_path):
    used = PIPELINES["video"].from_pretrained(folders["paper"])
    used.tokenizer(["a", "a b"], padding="longest", truncation=True, max_length=7)
    save_stage(used, tmp_path / "used")
    one, two = (folder / "tokenizer" / "tokenizer.json" for folder in (tmp_path / "used", folders["motion"]))
    assert one.read_bytes() != two.read_bytes()
    save_stage(PIPELINES["video"].from_pretrained(tmp_path / "used"), tmp_path / "again")
    assert "truncation_strategy" in (tmp_path / "again" / "tokenizer" / "tokenizer_config.json").read_text()
    make_bundle(tmp_path / "other", folders["motion"], tmp_path / "again")
    make_bundle(tmp_path / "toys", folders["motion"], tmp_path / "used")
    assert StageInfo.read(tmp_path / "toys" / "video", "video")
    assert not [path for path in (tmp_path / "toys").rglob("*.json") if str(tmp_path.parent) in path.read_text()]


def test_a_bundle_takes_a_stage_of_another_bundle(folders, tmp_path):
    make_bundle(tmp_path / "toys", folders["motion"], folders["paper"])
    make_bundle(tmp_path / "newer", tmp_path / "toys" / "motion", folders["paper"])
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "toys", tmp_path / "newer")
    )
    assert first == second


def test_a_bundle_forgets_where_its_stages_were_made(folders, tmp_path):
    trained = tmp_path / "trained"
    shutil.copytree(folders["motion"], trained)
    config = {"out": str(tmp_path / "run"), "base": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "init": None, "batch": 8}
    (trained / "train.json").write_text(json.dumps({"config": config, "step": 5}))
    make_bundle(tmp_path / "toys", trained, folders["paper"])
    told = json.loads((tmp_path / "toys" / "motion" / "train.json").read_text())
    assert told == {"config": config | {"out": "run"}, "step": 5}


def test_stages_saved_by_different_versions_share_their_parts(folders, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders["paper"], other)
    config = other / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_version": "5.99.0"}))
    (other / "vae" / "README.md").write_text("A card.")
    make_bundle(tmp_path / "toys", folders["motion"], other)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 7}))
    with pytest.raises(SampleError, match=r"differ in their text_encoder .*config\.json"):
        make_bundle(tmp_path / "others", folders["motion"], other)


def test_stages_on_different_bases_are_no_bundle(folders, tmp_path):
    other = make_stage("tiny-wan", "video", frames=5, seed=3)
    save_stage(other, tmp_path / "other")
    with pytest.raises(SampleError, match=r"differ in their text_encoder .*model\.safetensors"):
        make_bundle(tmp_path / "toys", folders["motion"], tmp_path / "other")
    assert not (tmp_path / "toys").exists()


def test_a_bundle_that_lost_a_part_says_so(folders, tmp_path):
    make_bundle(tmp_path / "toys", folders["motion"], folders["paper"])
    shutil.rmtree(tmp_path / "toys" / "text_encoder")
    with pytest.raises(SampleError, match="lacks its component 'text_encoder'"):
        StageInfo.read(tmp_path / "toys" / "motion", "motion")
