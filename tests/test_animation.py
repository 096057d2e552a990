"""animate from Python, on a tiny model of random weights: what it gives, how it goes on, and what it refuses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import FRAMES, ONE, PROMPT, hollow, make_tiny_bundle, picture

import throughmask
from throughmask import media, storage
from throughmask.animation import Animation, Animator
from throughmask.animation.fitting import fitting_size
from throughmask.errors import InvalidValueError, OutputError, SampleError, ThroughMaskWarning
from throughmask.perception.language import EnglishRules
from throughmask.perception.parse import named_hints, painted_points
from throughmask.stages import bundle
from throughmask.stages.bundle import Habits, find_model, stage_folder

PIXELS, LABELS = picture()
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def animator(model):
    return Animator.load(model, device="cpu")


@pytest.fixture(scope="module")
def made(animator):
    return animator.animate(PIXELS, PROMPT, seed=3, masks=LABELS, **QUIET)


def test_the_front_animates(model, made, tmp_path):
    media.write_image(tmp_path / "toys.png", PIXELS)
    media.write_labels(tmp_path / "masks.png", LABELS)
    masks = tmp_path / "masks.png"
    for image in (tmp_path / "toys.png", Image.fromarray(PIXELS)):
        again = throughmask.animate(image, PROMPT, model=model, device="cpu", seed=3, masks=masks, **QUIET)
        assert again.sample == made.sample
    assert set(made.seconds) == {"parse", "load", "move", "render"}
    assert (made.seed, [each.seed for each in made.candidates]) == (3, [3])


def test_what_is_saved_is_a_sample_with_pictures(made, tmp_path):
    made.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("image.png", "masks", "overlay.mp4", "scene.json", "sheet.png", "video.mp4"),
    ]
    loaded = storage.load_sample(tmp_path / "out")
    assert loaded.scene == made.sample.scene
    assert loaded.trajectory == made.sample.trajectory
    assert len(loaded.video) == len(media.read_video(tmp_path / "out" / "overlay.mp4")) == FRAMES
    with pytest.raises(OutputError, match="not empty"):
        made.save(tmp_path / "out")


def test_a_notebook_shows_video_and_masks(made, monkeypatch):
    written = []
    monkeypatch.setattr(media, "write_video", lambda path, video: (written.append(video), path.write_bytes(b"mp4")))
    scene = replace(made.sample.scene, prompt="a <b> ball")
    shown = Animation(replace(made.sample, scene=scene))._repr_html_()
    assert 'src="data:video/mp4;base64,bXA0"' in shown
    assert "a &lt;b&gt; ball" in shown
    assert written[0].size == (32, 2 * 48)
    assert np.array_equal(written[0].frames[:, :, :48], made.sample.video.frames)
    with pytest.raises(InvalidValueError, match="no video with masks"):
        Animation(replace(made.sample, video=None))._repr_html_()


def test_a_large_video_is_shown_small(made):
    large, labels = np.zeros((2, 720, 1280, 3), np.uint8), np.zeros((2, 720, 1280), np.uint8)
    sample = replace(
        made.sample,
        scene=throughmask.Scene(large[0], labels[0]),
        trajectory=throughmask.MaskTrajectory(labels, 12),
        video=throughmask.Video(large, 12),
    )
    assert len(Animation(sample)._repr_html_()) < 20_000


def test_the_steps_one_by_one_are_the_same(animator, made):
    scene = animator.parse(PIXELS, PROMPT, masks=LABELS).scene
    proposal = animator.move(scene, [3])[0]
    assert proposal.motion == made.sample.trajectory
    assert animator.render(scene, proposal.motion, seed=3) == made.sample.video


def test_several_objects_may_be_moved_apart_and_a_bundle_may_say_so(animator, made, monkeypatch):
    scene, steps = made.sample.scene, []
    apart = animator.animate(PIXELS, PROMPT, seed=3, masks=LABELS, apart=True, **QUIET)
    assert (
        apart.sample.trajectory
        == animator.mover.move(scene, [3], apart=True, steps=2, guidance=animator.habits.guidance)[0]
    )
    assert apart.sample.trajectory != made.sample.trajectory
    monkeypatch.setattr(animator, "habits", replace(animator.habits, apart=True))
    proposal = animator.move(scene, [3], on_step=lambda: steps.append(0))[0]
    assert proposal.motion == apart.sample.trajectory
    assert len(steps) == animator.habits.steps * len(scene.objects)
    assert animator.move(scene, [3], apart=False)[0].motion == made.sample.trajectory


def test_both_stages_share_one_vae_and_text_encoder(animator, made):
    assert animator.mover.vae is animator.renderer.vae
    assert animator.mover.text_encoder is animator.renderer.text_encoder
    assert animator.mover.transformer is not animator.renderer.transformer


@pytest.mark.parametrize("lacks", [{"trajectory": None, "video": None}, {"video": None}])
def test_it_goes_on_from_what_was_made(animator, made, lacks):
    begun = Animation(replace(made.sample, **lacks), seed=made.seed)
    steps = []
    again = animator.animate(
        PIXELS, PROMPT, seed=3, masks=LABELS, begun=begun, keep=lambda step, _: steps.append(step), **QUIET
    )
    assert again.sample == made.sample
    assert steps == (["render"] if len(lacks) == 1 else ["move", "render"])


def test_each_step_is_kept_as_soon_as_it_is_done(animator):
    seen = []
    animator.animate(PIXELS, PROMPT, masks=LABELS, keep=lambda *each: seen.append(each), **QUIET)
    assert [step for step, _ in seen] == ["parse", "move", "render"]
    parts = [(each.sample.trajectory is not None, each.sample.video is not None) for _, each in seen]
    assert parts == [(False, False), (True, False), (True, True)]


@pytest.mark.slow
def test_the_most_confident_or_the_picked_one_is_rendered(model, monkeypatch):
    animator = Animator.load(model, device="cpu")
    move = animator.move

    def surer(*args, **options):
        return [each._replace(confidence=0.9 if each.seed == 1 else 0.2) for each in move(*args, **options)]

    monkeypatch.setattr(animator, "move", surer)
    best = animator.animate(PIXELS, PROMPT, seeds=[0, 1, 2], masks=LABELS, **QUIET)
    assert (best.seed, [each.confidence for each in best.candidates]) == (1, [0.2, 0.9, 0.2])
    picked = animator.animate(PIXELS, PROMPT, seeds=[0, 1, 2], pick=2, masks=LABELS, **QUIET)
    assert (picked.seed, picked.sample.trajectory) == (2, picked.candidates[2].motion)
    assert picked.sample.video == animator.render(picked.sample.scene, picked.sample.trajectory, seed=2)


def test_the_models_own_segmenter_finds_objects(animator):
    found = animator.parse(PIXELS, ONE).scene
    assert (found.labels == 1).all()  # so it was made
    assert found.objects[0].name == "red ball"


def test_objects_are_found_and_prompts_read_by_what_is_given(model, tmp_path):
    class Seer:
        def segment(self, image, phrases, given=None):
            assert phrases == {1: "red ball"}
            return LABELS * (LABELS == 1)

    class Reader:
        def read(self, prompt):
            return EnglishRules().read(ONE)

    given = {"language": Reader(), "perception": Seer()}
    made = throughmask.animate(PIXELS, "la balle rouge roule", model=model, device="cpu", **given, **QUIET)
    assert (made.sample.scene.labels == LABELS * (LABELS == 1)).all()
    shutil.copytree(model, tmp_path / "blind", ignore=shutil.ignore_patterns("segmenter"))
    found = Animator.load(tmp_path / "blind", device="cpu", perception=model).parse(PIXELS, ONE).scene
    assert (found.labels == 1).all()  # so its segmenter was made
    with pytest.raises(SampleError, match=r"abacus is no segmenter: it lacks .*real for photographs"):
        throughmask.animate(PIXELS, ONE, model=model, device="cpu", perception="abacus", **QUIET)


def test_points_and_boxes_are_hints_to_it(model):
    hints = []

    class Seer:
        def segment(self, image, phrases, given=None):
            hints.append(given)
            return LABELS

    animator = Animator.load(model, device="cpu", perception=Seer())
    animator.parse(PIXELS, PROMPT, points=[("red ball", (36, 9)), (2, (10, 17))])
    animator.parse(PIXELS, PROMPT, boxes=[("blue block", (4, 10, 16, 24))])
    assert (hints[0][9, 36], hints[0][17, 10], (hints[0] > 0).mean() < 0.1) == (1, 2, True)
    assert ((hints[1] == 2) == (LABELS == 2)).all()


def test_a_point_is_a_small_disc():
    labels = painted_points((48, 96), [(1, (50, 20)), (2, (95, 0)), (3, (51, 20))])
    assert (labels[20, 51], labels[0, 95]) == (3, 2)
    assert labels[20, 48] == 1
    rows, columns = np.nonzero(labels == 2)
    assert (rows.max(), columns.min()) == (2, 93)  # radius 2, cut off at the corner
    with pytest.raises(InvalidValueError, match="a point is x,y, inside the picture"):
        painted_points((48, 96), [(1, (96, 0))])
    assert named_hints((48, 96), ["red ball"]) is None
    with pytest.raises(InvalidValueError, match=r"names no such object \(seen: cat\); named: red ball"):
        named_hints((48, 96), ["red ball"], points=[("cat", (1, 1))])


def test_words_that_the_model_never_read_are_told(animator, made):
    known = replace(animator, habits=Habits(steps=2, vocabulary=(*PROMPT.split(), "right")))
    assert known.habits.unread(["The red ball rolls right."]) == []
    assert known.habits.unread(["the ball dances, the red ball dances twice"]) == ["dances", "twice"]
    assert known.habits.unread(["The balls roll towards the right."]) == ["towards"]
    assert Habits().unread(["anything at all"]) == []
    prompt = "the red ball explodes and the blue block rols right."
    with pytest.warns(ThroughMaskWarning, match=r"never read 'explodes', .*'rols' \(rolls\?\)"):
        again = known.animate(PIXELS, prompt, seed=3, masks=LABELS, **QUIET)
    assert "never read" in again.notes[-1]
    known.animate(PIXELS, PROMPT, seed=3, masks=LABELS, **QUIET)


def test_a_picture_unlike_those_learnt_is_warned_about(animator, made):
    strict = replace(animator, habits=Habits(steps=2, least_psnr=99.0))
    with pytest.warns(ThroughMaskWarning, match=r"unlike those .* init, then throughmask train\) .*--masks"):
        again = strict.animate(PIXELS, PROMPT, seed=3, masks=LABELS, **QUIET)
    assert again.sample == made.sample
    assert "theirs at 99 dB" in again.notes[0]
    with pytest.warns(ThroughMaskWarning, match="unlike those"), pytest.raises(InvalidValueError, match="blue block"):
        strict.animate(PIXELS, PROMPT, **QUIET)  # it may be why nothing is found, so it is said first
    lenient = replace(animator, habits=Habits(steps=2, least_psnr=1.0))
    assert lenient.animate(PIXELS, PROMPT, seed=3, masks=LABELS, **QUIET).notes == ()


@pytest.mark.parametrize(
    ("size", "learnt", "fits"),
    [
        ((256, 256), (256, 256), (256, 256)),
        ((16, 16), (256, 256), (256, 256)),
        ((720, 1280), (256, 256), (192, 336)),
        ((6000, 2000), (256, 256), (448, 144)),
        ((720, 1280), None, (720, 1280)),
        ((37, 500), None, (32, 496)),
        ((5, 7), None, (16, 16)),
    ],
)
def test_pictures_of_any_size_fit(size, learnt, fits):
    assert fitting_size(size, 16, learnt) == fits


def test_a_picture_of_another_size_is_resized_with_a_notice(animator):
    pixels, labels = np.pad(PIXELS, ((0, 1), (0, 1), (0, 0))), np.pad(LABELS, ((0, 1), (0, 1)))
    with pytest.warns(ThroughMaskWarning, match="resized from 33×49 to 32×48"):
        made = animator.animate(pixels, PROMPT, masks=labels, **QUIET)
    assert made.sample.video.size == (32, 48)
    scene, _, notes, _ = animator.parse(pixels, PROMPT, masks=labels, size=(32, 64))
    assert scene.size == (32, 64)
    assert "the picture was stretched" in notes[-1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prompt": "  "}, "prompt"),
        ({"prompt": "slowly to the left", "masks": None}, "names no object"),
        ({"image": np.zeros((4, 4), np.uint8)}, "uint8 H W 3"),
        ({"masks": LABELS[:8]}, "the masks have another size"),
        ({"points": [(1, (1, 1))]}, "masks need no boxes or points"),
        ({"points": [("green cat", (1, 1))], "masks": None}, "names no such object"),
        ({"seed": 1, "seeds": [1]}, "seed or seeds"),
        ({"seeds": [1, 2], "pick": 3}, "not among the seeds"),
        ({"steps": 0}, "at least one step"),
        ({"frames": 6}, "nearest is 5"),
        ({"fps": 0}, "frame rate"),
        ({"size": (30, 48)}, "multiples of 16"),
        ({"masks": np.where(LABELS == 0, 200, LABELS).astype(np.uint8)}, "this model knows ids 1 to"),
    ],
)
def test_mistakes_are_found_before_anything_loads(model, tmp_path, options, problem):
    shutil.copytree(model, tmp_path / "model")
    hollow(tmp_path / "model")
    animator = Animator.load(tmp_path / "model", device="cpu")
    options = {"image": PIXELS, "prompt": PROMPT, "masks": LABELS, **options}
    with pytest.raises(InvalidValueError, match=problem):
        animator.animate(**options, **QUIET)


def test_a_picture_that_is_too_long_must_be_cropped():
    with pytest.raises(InvalidValueError, match=r"more than 4 times .*crop it"):
        fitting_size((100, 900), 16, (256, 256))


def test_what_is_no_model_of_both_stages(model, tmp_path):
    with pytest.raises(SampleError, match="needs a model of both stages"):
        Animator.load(model / "motion")
    with pytest.raises(SampleError, match="needs a model of both stages"):
        Animator.load(tmp_path)
    with pytest.raises(InvalidValueError, match="no such device"):
        Animator.load(model, device="abacus")
    shutil.copytree(model, tmp_path / "blind", ignore=shutil.ignore_patterns("segmenter"))
    with pytest.raises(SampleError, match="cannot find objects"):
        Animator.load(tmp_path / "blind", device="cpu").animate(PIXELS, ONE, **QUIET)


def with_recipe(model, folder, stage, name):
    shutil.copytree(model, folder)
    index = folder / stage / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "recipe": name}))
    return folder


@pytest.mark.slow
def test_stages_of_other_recipes(model, made, tmp_path):
    blind = with_recipe(model, tmp_path / "ti2v", "video", "ti2v")
    again = throughmask.animate(PIXELS, PROMPT, model=blind, device="cpu", seed=3, masks=LABELS, **QUIET)
    assert again.sample.trajectory == made.sample.trajectory
    assert len(again.sample.video) == FRAMES
    with pytest.raises(SampleError, match=r"goes by optical flow \(seen: motion\)"):
        Animator.load(with_recipe(model, tmp_path / "flow", "motion", "flow"))


def test_models_are_found_by_name_or_folder(model, monkeypatch, tmp_path):
    monkeypatch.setattr(bundle, "BUNDLED_FOLDER", tmp_path)
    with pytest.raises(SampleError, match=r"not in this installation \(seen: toybox\); give --model"):
        find_model("toybox")
    shutil.copytree(model, tmp_path / "toybox")
    assert find_model("toybox") == tmp_path / "toybox"
    assert find_model(model) == model
    assert stage_folder(model, "video") == model / "video"
    assert stage_folder(model / "video", "video") == model / "video"


def test_a_bundle_says_how_it_is_best_used(model, tmp_path):
    assert Habits.read(model) == Habits.read(model / "motion") == Habits(steps=2)
    assert Habits.read(tmp_path) == Habits()
    (tmp_path / "model.json").write_text(
        '{"habits": {"size": [256, 256], "guidance": [1, 2], "video_guidance": [3, 4], '
        '"apart": true, "vocabulary": ["a"]}}'
    )
    read = Habits.read(tmp_path)
    assert (read.apart, read.vocabulary) == (True, ("a",))
    assert (read.size, read.guidance_of("motion"), read.guidance_of("video")) == ((256, 256), (1, 2), (3, 4))
    (tmp_path / "model.json").write_text('{"habits": {"step": 3}}')
    with pytest.raises(SampleError, match="cannot be read"):
        Habits.read(tmp_path)
