"""A stage from a base: names, folders and the hub; what does not fit is refused."""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from diffusers import AnimateDiffPipeline, AutoencoderKLWan, WanPipeline
from tiny_stages import FRAMES, WRONG_FRAMES, first_masked, last_latents, randomise_layers

from throughmask.backbones import BASES, LAYOUTS, backbone, layout_of_class
from throughmask.errors import InvalidValueError, SampleError
from throughmask.stages import bases
from throughmask.stages.init import bind_stage, load_base, make_stage, save_stage
from throughmask.stages.recipes import recipe

# The diffusers pipeline of each base, from our components of it.
PIPELINES = {
    "wan": lambda parts: WanPipeline(**parts),
    "animatediff": lambda parts: AnimateDiffPipeline(
        **{"unet" if name == "transformer" else name: part for name, part in parts.items()}, motion_adapter=None
    ),
}
DENOISERS = {"wan": "transformer", "animatediff": "unet"}


@pytest.fixture(scope="session")
def base_folder(base, tmp_path_factory):
    """The base as a folder that diffusers wrote; its denoiser in bfloat16."""
    found, components = base
    folder = tmp_path_factory.mktemp("base") / "pipeline"
    PIPELINES[found.name](components).save_pretrained(folder)
    return folder


def test_known_names_are_the_ones_that_the_help_promises():
    assert {f"Wan-AI/{name}-Diffusers" for name in ("Wan2.1-T2V-1.3B", "Wan2.1-T2V-14B", "Wan2.2-TI2V-5B")} < set(BASES)
    for name in BASES.values():
        assert layout_of_class(backbone(name).denoiser_class).name == name


def test_a_folder_of_a_base_becomes_a_stage_with_its_weights(base, base_folder, tmp_path):
    _, components = base
    stage = make_stage(base_folder, "video", recipe_name="cross-only", frames=9, fps="24", palette="paper", num_ids=21)
    weights = components["transformer"].state_dict()
    mine = stage.transformer.state_dict()
    half = next(iter(weights.values())).dtype
    for key, value in weights.items():
        assert torch.equal(mine[key] if mine[key].shape == value.shape else mine[key][:, : value.shape[1]], value)
    info = stage.info
    assert (info.stage, info.recipe.name, info.frames, info.fps) == ("video", "cross-only", 9, "24")
    assert (info.palette.name, info.num_ids, half) == ("paper", 21, torch.float32)
    save_stage(stage, tmp_path / "out")
    with pytest.raises(Exception, match="exists"):
        save_stage(stage, tmp_path / "out")


def test_a_base_keeps_the_precision_it_is_stored_in(base, base_folder, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(base_folder, folder)
    part = folder / DENOISERS[base[0].name]
    type(base[1]["transformer"]).from_pretrained(part, dtype=torch.bfloat16).save_pretrained(part)
    stage = make_stage(folder, "video")
    assert (stage.transformer.dtype, stage.vae.dtype) == (torch.bfloat16, torch.float32)
    assert first_masked(stage.transformer, "masked_self").to_q.weight.dtype == torch.bfloat16
    kept = [name for name, value in stage.transformer.named_parameters() if value.dtype == torch.float32]
    assert ("blocks.0.scale_shift_table" in kept) == (base[0].name == "wan")  # Wan keeps it so


def test_a_base_with_two_denoisers_is_refused(tmp_path):
    _, components = load_base("tiny-wan")
    WanPipeline(**components, transformer_2=components["transformer"]).save_pretrained(tmp_path / "two")
    with pytest.raises(SampleError, match="two denoisers"):
        load_base(tmp_path / "two")


def test_blocks(base_name):
    blocks = lambda **options: make_stage(base_name, **options).transformer.config.num_masked_blocks  # noqa: E731
    assert blocks(stage="motion") == 0
    # A quarter of Wan's 3 blocks, at least one; all four of the U-Net's encoder.
    default, most = {"tiny-wan": (1, 3), "tiny-animatediff": (4, 4)}[base_name]
    assert blocks(stage="video") == default
    assert blocks(stage="video", num_masked_blocks=most) == most
    assert blocks(stage="video", num_masked_blocks=2) == 2
    assert blocks(stage="video", num_masked_blocks=0) == 0
    for number in (most + 1, -1):
        with pytest.raises(InvalidValueError, match="masked blocks are 0 to"):
            make_stage(base_name, "video", num_masked_blocks=number)
    with pytest.raises(InvalidValueError, match="the motion stage has no masked attention blocks"):
        make_stage(base_name, "motion", num_masked_blocks=1)
    assert blocks(stage="motion", recipe_name="bound") == default
    assert blocks(stage="motion", recipe_name="bound", num_masked_blocks=1) == 1


def test_a_trained_stage_1_is_bound_and_makes_the_same_until_trained_on(base_name, sample):
    trained = make_stage(base_name, "motion", frames=FRAMES, fps="24", seed=3)
    trained.set_progress_bar_config(disable=True)
    bound = bind_stage(trained)
    bound.set_progress_bar_config(disable=True)
    assert (bound.config.recipe, bound.config.fps) == ("bound", "24")
    assert bound.transformer.config.num_masked_blocks > 0
    assert torch.equal(last_latents(bound, sample), last_latents(trained, sample))
    randomise_layers(bound.transformer)
    assert not torch.equal(last_latents(bound, sample), last_latents(trained, sample))
    for other in (bound, make_stage(base_name, "video", frames=FRAMES)):
        with pytest.raises(InvalidValueError, match="only a stage 1 of the recipe paper can be bound"):
            bind_stage(other)


def test_the_seed_decides_the_tiny_weights_and_touches_no_other_randomness(base_name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (make_stage(base_name, "video", seed=seed).transformer.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "sound"}, "a stage is motion or video"),
        ({"recipe_name": "soup"}, "no recipe of that name.*soup.*known: paper"),
        ({"base": "nothing"}, "no such base model.*nothing.*known names: Wan-AI"),
        ({"palette": "rainbow"}, "no palette of that name"),
        ({"num_ids": 14}, "colours for 1 to 13 ids"),
        ({"num_ids": 0}, "colours for 1 to 13 ids"),
        ({"fps": 29.97}, "frame rate must be exact"),
    ],
)
def test_what_does_not_exist_is_refused(base_name, options, message):
    with pytest.raises(InvalidValueError, match=message):
        make_stage(**{"base": base_name, "stage": "video", "frames": FRAMES} | options)


def test_frames_that_the_model_cannot_make_are_refused(base, base_name):
    for frames, words in WRONG_FRAMES[base[0].name].items():
        with pytest.raises(InvalidValueError, match=words):
            make_stage(base_name, "video", frames=frames)


def test_added_parameters_are_counted(base, base_name):
    backbone, components = base
    for stage in ("motion", "video"):
        denoiser = make_stage(base_name, stage).transformer
        more = denoiser.num_parameters() - components["transformer"].num_parameters()
        assert backbone.num_added(denoiser) == more > 0


def test_unknown_backbones_are_refused():
    with pytest.raises(InvalidValueError, match=r"no backbone of that name.*known: wan"):
        backbone("vhs")
    with pytest.raises(InvalidValueError, match="no recipe"):
        recipe("")


def test_folders_that_are_no_base(tmp_path, folders):
    with pytest.raises(SampleError, match=r"not a diffusers pipeline: it has no model_index\.json"):
        load_base(str(tmp_path))
    with pytest.raises(SampleError, match=r"not a text-to-video pipeline that we know.*ImageToMotionPipeline.*Wan"):
        load_base(str(folders["motion"]))


@pytest.fixture
def hub(base_folder, monkeypatch, tmp_path):
    """A hub on this machine that holds one repository, tiny/base; returns the paths it was asked for."""
    from huggingface_hub import constants

    files = {path.relative_to(base_folder).as_posix(): path for path in base_folder.rglob("*") if path.is_file()}
    files |= {"assets/film.mp4": base_folder / "model_index.json"}  # not ours to download
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append((self.command, self.path))
            body, headers = b"", {}
            path = self.path.split("?")[0]
            sizes = {name: file.stat().st_size for name, file in files.items()}
            if path.startswith("/api/models/tiny/base/tree/"):
                body = json.dumps([{"type": "file", "path": name, "size": sizes[name], "oid": name} for name in sizes])
            elif path.startswith("/api/models/tiny/base"):
                body = json.dumps({"id": "tiny/base", "sha": "a" * 40, "siblings": [{"rfilename": n} for n in sizes]})
            elif (name := path.partition("/resolve/")[2].partition("/")[2]) in files:
                body, headers = files[name].read_bytes(), {"X-Repo-Commit": "a" * 40, "ETag": f'"{name}"'}
            body = body.encode() if isinstance(body, str) else body
            self.send_response(200 if body else 404)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield asked
    server.shutdown()
    server.server_close()


def weights(asked):
    return [path for verb, path in asked if verb == "GET" and path.endswith(".safetensors")]


def test_what_a_hub_model_cannot_do_is_known_before_its_weights_come(hub, base, monkeypatch):
    for frames, words in WRONG_FRAMES[base[0].name].items():
        with pytest.raises(InvalidValueError, match=words):
            make_stage("tiny/base", "motion", frames=frames)
    assert not weights(hub)
    monkeypatch.setattr(bases, "LAYOUTS", {})
    with pytest.raises(SampleError, match="not a text-to-video pipeline that we know"):
        make_stage("tiny/base", "motion")
    assert hub
    assert not weights(hub)


def test_what_wans_configuration_leaves_out_is_its_class_default(base, base_folder):
    if base[0].name != "wan":
        pytest.skip("Wan's")
    own = json.loads((base_folder / "vae" / "config.json").read_text())
    short = {key: value for key, value in own.items() if not key.startswith("scale_factor")}
    model = AutoencoderKLWan.from_config({**short, "base_dim": 4})
    denoiser = {"patch_size": [1, 2, 2]}
    assert LAYOUTS["wan"].strides(short, denoiser) == LAYOUTS["wan"].strides(dict(model.config), denoiser) == (4, 16)


def test_a_hub_id_says_its_size_then_downloads_once(hub, base, monkeypatch):
    from huggingface_hub import constants

    said = []
    stage = make_stage("tiny/base", "motion", say=lambda text: said.append((text, len(hub))))
    ((text, asked_before),) = said
    assert re.match(r"tiny/base: 3 of \d+ files to download, 0\.0 GB", text)  # configurations are there already
    assert not weights(hub[:asked_before])  # it is said before
    assert weights(hub)
    assert not any("film" in path for _, path in hub)
    assert stage.info.stage == "motion"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(hub)
    make_stage("tiny/base", "motion")
    assert len(hub) == before  # offline: from the cache, without a request
    with pytest.raises(SampleError, match="HF_HUB_OFFLINE is set, and the cache does not hold it"):
        make_stage("tiny/other", "motion")
    assert len(hub) == before


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(SampleError, match=r"tiny/other cannot be downloaded.*check the name and the network"):
        make_stage("tiny/other", "motion")
