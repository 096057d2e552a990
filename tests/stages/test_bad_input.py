"""Requests and checkpoints that do not fit: one clear sentence each, before anything heavy loads."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_stages import WRONG_FRAMES

from throughmask.errors import InvalidValueError, SampleError
from throughmask.stages.checkpoint import StageInfo
from throughmask.stages.image_to_motion import ImageToMotionPipeline
from throughmask.stages.motion_to_video import MotionToVideoPipeline
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, SceneObject


@pytest.fixture
def wrong_frames(base):
    """Numbers of frames that the backbone cannot make, and what it says."""
    return WRONG_FRAMES[base[0].name]


@pytest.fixture
def copy(folders, tmp_path):
    """A video checkpoint that may be damaged."""
    shutil.copytree(folders["paper"], tmp_path / "copy")
    return tmp_path / "copy"


def _edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (data | changes).items() if value is not ...}))


def test_a_whole_checkpoint_says_what_the_pipeline_says(folders, pipelines):
    for name, stage in (("motion", "motion"), ("paper", "video")):
        assert StageInfo.read(folders[name], stage) == pipelines[name].info


def test_the_other_stages_checkpoint_is_refused(folders):
    with pytest.raises(SampleError, match=r"checkpoint of the other stage.*render needs one made for --stage video"):
        MotionToVideoPipeline.from_pretrained(folders["motion"])
    with pytest.raises(SampleError, match=r"checkpoint of the other stage.*move needs one made for --stage motion"):
        ImageToMotionPipeline.from_pretrained(folders["paper"])


@pytest.mark.parametrize("name", ["vae", "transformer", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(copy, name):
    shutil.rmtree(copy / name)
    with pytest.raises(SampleError, match=name):
        StageInfo.read(copy, "video")


def test_a_component_left_out_of_the_index_is_named(copy):
    _edit(copy / "model_index.json", scheduler=[None, None])
    with pytest.raises(SampleError, match="lacks its component 'scheduler'"):
        StageInfo.read(copy, "video")


def test_pickled_weights_are_refused(copy):
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(SampleError, match=r"only as pickles, which can run code.*\.bin.*safetensors"):
        MotionToVideoPipeline.from_pretrained(copy)
    weights.with_suffix(".bin").unlink()
    with pytest.raises(SampleError, match="transformer has no weights"):
        StageInfo.read(copy, "video")


def test_a_torn_file_is_named(copy):
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SampleError, match=r"cannot be loaded.*copy the whole folder again"):
        MotionToVideoPipeline.from_pretrained(copy)


def test_a_lost_shard_is_named(copy):
    index = copy / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(SampleError, match=r"lacks some of its weights.*model-00001-of-00002"):
        StageInfo.read(copy, "video")
    index.write_text("{}")
    assert StageInfo.read(copy, "video").stage == "video"


def test_folders_that_are_no_checkpoint(copy, tmp_path, wrong_frames):
    with pytest.raises(SampleError, match=r"has no model_index\.json"):
        StageInfo.read(tmp_path, "video")
    index = copy / "model_index.json"
    for change, message in (
        ({"_class_name": "WanPipeline"}, "not a checkpoint of a stage.*WanPipeline"),
        ({"recipe": ...}, "lacks a setting.*recipe"),
        ({"recipe": "soup"}, "no recipe of that name.*soup.*paper"),
        ({"palette": "rainbow"}, "no palette of that name"),
        ({"num_ids": 14}, "colours for 1 to 13 ids.*14"),
        ({"num_ids": "many"}, "of another kind"),
        ({"fps": 29.97}, "frame rate must be exact"),
        *(({"frames": frames}, words) for frames, words in wrong_frames.items()),
    ):
        before = index.read_text()
        _edit(index, **change)
        with pytest.raises((SampleError, InvalidValueError), match=message):
            StageInfo.read(copy, "video")
        index.write_text(before)
    _edit(copy / "transformer" / "config.json", _class_name="UNet2DModel")
    with pytest.raises(InvalidValueError, match=r"no backbone has such a denoiser.*UNet2DModel"):
        StageInfo.read(copy, "video")
    index.write_text("[1]")
    with pytest.raises(SampleError, match="not a JSON object"):
        StageInfo.read(copy, "video")
    index.write_text("{")
    with pytest.raises(SampleError, match="cannot be read"):
        StageInfo.read(copy, "video")


def test_a_motion_that_does_not_fit_the_scene(pipelines, sample, wrong_frames):
    render = pipelines["paper"].render
    labels, fps = sample.trajectory.labels, sample.trajectory.fps
    with pytest.raises(InvalidValueError, match=r"another number of frames.*5, not 9"):
        render(sample.scene, sample.trajectory, frames=9)
    with pytest.raises(InvalidValueError, match=r"differ in size.*\(48, 32\) and \(48, 64\)"):
        render(sample.scene, MaskTrajectory(labels[:, :, :32], fps))
    with pytest.raises(InvalidValueError, match=r"objects that the scene does not know.*\[5\]"):
        render(sample.scene, MaskTrajectory(np.where(labels == 1, 5, labels).astype(np.uint8), fps))
    long, words = next(iter(wrong_frames.items()))
    with pytest.raises(InvalidValueError, match=words):
        render(sample.scene, MaskTrajectory(np.resize(labels, (long, *labels.shape[1:])), fps))
    with pytest.raises(InvalidValueError, match=r"'paper' renders a mask trajectory.*NoneType"):
        render(sample.scene)
    with pytest.raises(InvalidValueError, match=r"'paper' renders a mask trajectory.*Video"):
        render(sample.scene, sample.video)
    with pytest.raises(InvalidValueError, match=r"'flow' renders a video of flow.*MaskTrajectory"):
        pipelines["flow"].render(sample.scene, sample.trajectory)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least one step"),
        ({"steps": -1}, "at least one step"),
        ({"guidance": (-1, 2)}, "image guidance must be a number from 0 up"),
        ({"guidance": (1, float("nan"))}, "text guidance must be a number from 0 up"),
        ({"fps": 29.97}, "frame rate must be exact"),
        ({"seeds": []}, "seeds are whole numbers"),
        ({"seeds": [-1]}, "seeds are whole numbers"),
        ({"seeds": [True]}, "seeds are whole numbers"),
    ],
)
def test_options_out_of_range(pipelines, sample, options, message):
    with pytest.raises(InvalidValueError, match=message):
        pipelines["motion"].move(sample.scene, **options)
    if "seeds" not in options:
        with pytest.raises(InvalidValueError, match=message):
            pipelines["paper"].render(sample.scene, sample.trajectory, **options)


def test_frames_that_the_model_cannot_make(pipelines, sample, wrong_frames):
    for frames, words in wrong_frames.items():
        with pytest.raises(InvalidValueError, match=words):
            pipelines["motion"].move(sample.scene, frames=frames)


def test_a_schedule_of_another_objective_is_refused(copy, pipelines):
    if "linear-quadratic" in pipelines["paper"].info.layout.schedules:
        pytest.skip("this backbone has them all")
    _edit(copy / "model_index.json", schedule="linear-quadratic")
    with pytest.raises(InvalidValueError, match=r"animatediff has no such schedule.*linear-quadratic"):
        StageInfo.read(copy, "video")


def test_scenes_that_the_model_cannot_take(pipelines, sample):
    objects = tuple(SceneObject(k, f"thing {k}", f"thing {k}") for k in range(1, 15))
    with pytest.raises(InvalidValueError, match=r"knows ids 1 to 13.*\[14\].*fewer objects"):
        pipelines["motion"].move(replace(sample.scene, objects=objects))
    odd = make_sample(0, num_objects=1, size=(40, 64), frames=5)
    for call in (
        lambda: pipelines["motion"].move(odd.scene),
        lambda: pipelines["paper"].render(odd.scene, odd.trajectory),
    ):
        with pytest.raises(InvalidValueError, match=r"multiples of 16 and 16.*40×64.*nearest is"):
            call()


def test_noise_must_come_from_the_cpu(pipelines, sample):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    with pytest.raises(InvalidValueError, match="CPU generators"):
        pipelines["paper"].render(sample.scene, sample.trajectory, generator=torch.Generator("cuda"))
