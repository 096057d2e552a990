"""Whole scenes judged: oracles get exactly the numbers they must, and only what a subject can do is measured."""

import numpy as np
import pytest
from oracles import ONE, TWO, Finder, Frozen, Mover, Oracle, Renderer, Teller

from throughmask.errors import InvalidValueError
from throughmask.evaluate.judge import judge
from throughmask.evaluate.subjects import Subject
from throughmask.types import MaskTrajectory, Video

CASES = (ONE, TWO)
SEEDS = (0, 1, 2)
DEEDS = {"motion", "staying", "jump", "spin", "tip", "iou", "iou_small"}
VIDEO = {"likeness", "likeness_new", "psnr", "psnr_changing", "psnr_resting"}


def means(tally):
    return {name: value / count for name, (value, count) in tally.items() if count}


def test_the_truth_is_perfect_in_every_mode():
    for case in CASES:
        judgement = judge(case, Oracle(*CASES), Finder(*CASES), SEEDS)
        motion, video, whole = (means(judgement.tallies[mode]["model"]) for mode in ("motion", "video", "whole"))
        assert motion.pop("motion") == motion.pop("iou") == 1
        assert set(motion) <= {"staying"}
        assert (video["followed"], video["psnr"], video["psnr_changing"]) == (1, 100, 100)
        assert (whole["motion"], whole["iou"], whole["followed"], whole["psnr"]) == (1, 1, 1, 100)
        assert min(video["likeness"], video["likeness_new"], whole["likeness"]) > 0.99


def test_every_seed_of_noise_counts():
    judgement = judge(TWO, Oracle(*CASES), None, SEEDS)
    one = judge(TWO, Oracle(*CASES), None, [5])
    for mode, each in judgement.by_take.items():
        assert len(each) == 3
        for name, (value, count) in one.tallies[mode]["model"].items():
            assert judgement.tallies[mode]["model"][name] == (pytest.approx(3 * value), 3 * count)
    assert [take.seed for take in judgement.takes] == [0, 1, 2]


def test_a_frozen_subject_is_the_row_still():
    judgement = judge(ONE, Frozen(), Finder(*CASES), [0])
    for mode in ("motion", "video"):
        rows = judgement.tallies[mode]
        assert rows["model"] == rows["still"]
    assert means(judgement.tallies["motion"]["still"]) == {"motion": 0, "iou": 0}
    whole = means(judgement.tallies["whole"]["model"])
    assert (whole["motion"], whole["iou"]) == (0, 0)  # against the simulation
    assert (whole["followed"], "likeness_new" in whole) == (1, False)  # against its own masks, which it obeys
    assert whole["likeness"] > 0.99


def test_again_truth_and_the_vae_stand_beside():
    judgement = judge(ONE, Oracle(*CASES), Finder(*CASES), [0])
    motion, video, whole = (judgement.tallies[mode] for mode in ("motion", "video", "whole"))
    assert set(motion) == {"model", "again", "still"}
    assert set(video) == {"model", "again", "still", "vae", "truth"}
    assert set(whole) == {"model", "again", "still", "truth"}
    assert means(motion["again"])["motion"] == 1
    assert 0.5 < means(motion["again"])["iou"] < 1
    assert means(whole["again"])["iou"] == means(motion["again"])["iou"]
    assert means(video["vae"])["psnr"] == pytest.approx(20 * np.log10(255))
    assert means(video["truth"])["followed"] == means(whole["truth"])["iou"] == 1
    assert "psnr" not in video["truth"]


def test_only_what_a_subject_can_do_is_measured():
    modes = {kind: set(judge(ONE, kind(*CASES), None, [0]).tallies) for kind in (Mover, Renderer, Teller, Oracle)}
    assert modes == {
        Mover: {"motion"},
        Renderer: {"video"},
        Teller: {"whole"},
        Oracle: {"motion", "video", "whole"},
    }


def test_without_a_tracker_adherence_is_told_by_colour_alone():
    judgement = judge(ONE, Oracle(*CASES), None, [0])
    assert set(judgement.tallies["motion"]["model"]) == DEEDS
    assert set(judgement.tallies["video"]["model"]) == VIDEO
    assert set(judgement.tallies["whole"]["model"]) == VIDEO
    tracked = judge(ONE, Oracle(*CASES), Finder(*CASES), [0])
    assert set(tracked.tallies["whole"]["model"]) == VIDEO | DEEDS | {"followed"}


def test_a_video_from_words_alone_is_judged_against_the_simulation():
    tally = judge(ONE, Teller(*CASES), Finder(*CASES), [0]).tallies["whole"]["model"]
    assert set(tally) == DEEDS | {"psnr", "psnr_changing", "psnr_resting"}
    assert means(tally)["motion"] == 1


def test_no_video_is_searched_twice():
    finder = Finder(*CASES)
    judge(ONE, Oracle(*CASES), finder, SEEDS)
    assert finder.calls == 3 + 3 + 4  # of true masks, of its own masks, and truth, again, still, VAE


def test_a_subject_that_makes_nothing_is_refused():
    class Idle(Subject):
        pass

    with pytest.raises(InvalidValueError, match=r"neither masks nor videos.*Idle"):
        judge(ONE, Idle(), None, [0])


def test_what_is_too_short_or_too_small_is_refused():
    class Short(Oracle):
        def move(self, scene, seed):
            return MaskTrajectory(super().move(scene, seed).labels[:2], 12)

    class Small(Renderer):
        def render(self, scene, trajectory, seed):
            return Video(super().render(scene, trajectory, seed).frames[:, ::2, ::2], 12)

    for kind in (Short, Small):
        with pytest.raises(InvalidValueError, match="differ in size"):
            judge(ONE, kind(*CASES), None, [0])
