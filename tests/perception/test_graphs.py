"""SAM 2's CUDA graphs. On a CPU torch.fx stands in for one: it records operations and constants, but no Python."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from tiny_seeing import SIDE, tiny_detector, tiny_picture_model, tiny_video_model, trained_video_model
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from throughmask.perception.real.detect import GroundingDino
from throughmask.perception.real.graphs import RECORDING, SOON, Graphs, Recorded, Recorder
from throughmask.perception.real.memory import Memory, advance
from throughmask.perception.real.perception import RealPerception
from throughmask.perception.real.segment import Prompt, Sam2, look, pixel_values
from throughmask.perception.real.track import Sam2Tracker, Seed, encode

CUDA = torch.cuda.is_available()
SIZE = (75, 101)
FRAMES = np.random.default_rng(0).integers(0, 256, (20, *SIZE, 3), dtype=np.uint8)
MASK = np.zeros(SIZE, bool)
MASK[10:31, 20:53] = True
# Two and two: they share graphs, in which nothing of the others may be left.
SEEDS = {
    1: Seed(0, Prompt(mask=MASK)),
    2: Seed(0, Prompt(box=(40, 30, 90, 70))),
    5: Seed(4, Prompt(points=((20, 60, True),))),
    6: Seed(4, Prompt(mask=MASK[::-1].copy())),
}


class Traced:
    """In place of a Recorder: buffers that stay, and operations that were recorded with the first inputs.

    Like a graph it reads its inputs, the model's weights and nothing else, and overwrites what it gave before.
    """

    def __init__(self, model):
        self.weights = {values.data_ptr() for values in (*model.parameters(), *model.buffers())}
        self.played = []

    def __call__(self, function, inputs):
        given = [values.clone() for values in inputs]
        traced = make_fx(lambda *values: function(*values))(*given)
        for node in traced.graph.nodes:
            if node.op == "get_attr" and getattr(traced, node.target).data_ptr() not in self.weights:
                raise AssertionError(f"a constant is recorded: {node.target}")
            if "_local_scalar_dense" in str(node.target):
                raise AssertionError("the device is waited for")
        results = [values.clone() for values in traced(*given)]

        def play(inputs):
            self.played.append(len(inputs))
            for buffer, values in zip(given, inputs, strict=True):
                buffer.copy_(values)
            for buffer, values in zip(results, traced(*given), strict=True):
                buffer.copy_(values)
            return [values.clone() for values in results]

        return play


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["SAM 2", "SAM 2.1"])
def trained(request):
    return trained_video_model(request.param)


def traced_tracker(model, **options):
    tracker = Sam2Tracker(model, **options)
    recorder = Traced(model)
    tracker.__dict__["_graphs"] = Graphs(model, recorder)
    return tracker, recorder


def remembering(model, frames):
    """The inputs of `advance` for each frame that comes after objects are shown, none of which is changed later."""
    first, *others = Sam2Tracker(model, len(frames))._seen(frames)
    asked = []

    class Asked(Graphs):
        def __call__(self, function, *inputs):
            asked.append(inputs)
            return super().__call__(function, *inputs)

    seeds = {id: seed.prompt for id, seed in SEEDS.items() if not seed.frame}
    memory = Memory(model, first, SIZE, seeds, Asked(model, None))
    for seen in others:
        memory.step(seen)
    return asked


# What is recorded


@pytest.mark.slow
def test_a_recorded_video_is_what_it_is_without(trained):
    expected = Sam2Tracker(trained, 4).track(FRAMES, SEEDS)
    tracker, recorder = traced_tracker(trained, chunk=4)
    assert np.mean(tracker.track(FRAMES, SEEDS) != expected) < 1e-4
    graphs = tracker._graphs
    assert {key[0] for key in graphs.plays} == {encode, advance}
    assert not graphs.failed
    # Chunks of 4: five forward, one backward, and one of a single frame. Three frames after they are shown as much is
    # remembered as ever will be: that leaves 16 and 12 steps forward, and one backward. What comes before are three
    # steps with shapes of their own, forward twice and backward.
    assert len(recorder.played) == 6 + 29 + 3 * 3 - 5 * SOON
    assert len({frame.tobytes() for frame in expected}) > 12
    # The next videos need no graph of their own but for the single frame, and are not the one before.
    other = FRAMES[::-1].copy()
    for number in (1, 2):
        assert len(graphs.plays) == 1 + 4
        assert np.mean(tracker.track(other, SEEDS) != Sam2Tracker(trained, 4).track(other, SEEDS)) < 1e-4
        assert len(recorder.played) == (number + 1) * (6 + 29 + 3 * 3) - 5 * SOON + (number == SOON)
    assert len(graphs.plays) == 2 + 4


@pytest.mark.slow
def test_two_videos_at_a_time_do_not_meet_in_a_graph(trained):
    """As `prepare` has it on a GPU."""
    videos = [FRAMES, FRAMES[::-1].copy(), FRAMES, FRAMES[::-1].copy()]
    expected = [Sam2Tracker(trained, 4).track(frames, SEEDS) for frames in videos[:2]]
    tracker, recorder = traced_tracker(trained, chunk=4)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda frames: tracker.track(frames, SEEDS), videos))
    for number, labels in enumerate(found):
        assert np.mean(labels != expected[number % 2]) < 1e-4
    assert len(recorder.played) > 100


@pytest.mark.slow
def test_a_step_is_pure_and_a_recorded_one_takes_all_that_changes_as_inputs(trained):
    asked = remembering(trained, FRAMES)
    assert len(asked) == 19
    with torch.inference_mode():
        before = [values.clone() for values in asked[0]]
        once, again = (advance(trained, *asked[0]) for _ in range(2))
        for a, b in zip((*once, *before), (*again, *asked[0]), strict=True):
            assert torch.equal(a, b)
        Graphs(trained, Traced)  # position encodings are no longer kept
        # With one frame remembered, and with as many as ever: the shapes are the same from the fourth on.
        plays = {k: Traced(trained)(lambda *inputs: advance(trained, *inputs), asked[k]) for k in (0, 3)}
        for inputs, play in ((asked[0], plays[0]), *((inputs, plays[3]) for inputs in asked[3:])):
            for a, b in zip(play(inputs), advance(trained, *inputs), strict=True):  # values are rounded to bfloat16
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0 if a.dtype == torch.float32 else 2**-7)
        assert [int(inputs[-1]) for inputs in asked] == list(range(19))


@pytest.mark.slow
def test_the_image_encoder_is_pure(trained):
    Graphs(trained, Traced)
    with torch.inference_mode():
        pixels = [pixel_values(FRAMES[k : k + 3], SIDE) for k in (0, 3)]
        before = pixels[0].clone()
        play = Traced(trained)(lambda values: encode(trained, values), pixels[:1])
        for values in pixels:
            for a, b in zip(play([values]), encode(trained, values), strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        assert torch.equal(pixels[0], before)


def test_the_stand_in_sees_what_no_graph_could_do():
    """Else the tests above would say nothing."""
    model, x = torch.nn.Linear(2, 2), torch.ones(3)
    asked, constant = [], torch.ones(3)

    def counts(values):
        asked.append(1)
        return [values * len(asked)]

    play = Traced(model)(counts, [x])
    assert not torch.equal(play([x])[0], counts(x)[0])
    for wrong in (lambda values: [values + constant], lambda values: [values + torch.tensor([1.0, 2, 3])]):
        with pytest.raises(AssertionError, match="a constant"):
            Traced(model)(wrong, [x])
    with pytest.raises((AssertionError, RuntimeError)):
        Traced(model)(lambda values: [values * values[0].item()], [x])


class Devices(TorchDispatchMode):
    """Which devices the tensors of all operations are on."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, results))
        self.seen |= {values.device.type for values in leaves if isinstance(values, torch.Tensor)}
        return results


def test_no_tensor_of_the_host_is_used(trained):
    """It would be copied, and waited for, which cannot be recorded. `meta` is as little the host as a GPU is."""
    asked = remembering(trained, FRAMES[:8])
    Graphs(trained, Traced)
    trained.bfloat16().to("meta")
    for function, inputs in ((encode, [pixel_values(FRAMES[:4], SIDE)]), (advance, asked[0]), (advance, asked[-1])):
        there = [values.to("meta", torch.bfloat16) for values in inputs]
        if function is advance:
            there[-1] = there[-1].float()
        with torch.inference_mode(), Devices() as devices:
            function(trained, *there)
        assert devices.seen == {"meta"}


# When


class Plays:
    """In place of a Recorder: it counts."""

    def __init__(self, problem=None):
        self.recorded, self.problem = [], problem

    def __call__(self, function, inputs):
        self.recorded.append([tuple(values.shape) for values in inputs])
        if self.problem:
            raise self.problem
        return lambda inputs: [*function(*inputs), "played"]


def double(model, *inputs):
    return [2 * values for values in inputs]


def triple(model, *inputs):
    return [3 * values for values in inputs]


def test_what_comes_often_is_recorded_for_each_kind_of_inputs():
    plays = Plays()
    graphs = Graphs(torch.nn.Linear(2, 2), plays)
    a, b = torch.ones(2), torch.ones(3)
    for values in (a, b, a.double()):
        for k in range(SOON + 3):
            result, *played = graphs(double, values)
            assert torch.equal(result, 2 * values)
            assert played == (["played"] if k >= SOON else [])
    assert len(graphs(triple, a)) == 1
    assert plays.recorded == [[(2,)], [(3,)], [(2,)]]
    with torch.autocast("cpu"):
        assert len(graphs(double, a)) == 1
    assert len(Graphs(None, None)(double, a)) == 1


def test_the_least_recently_used_is_forgotten():
    plays = Plays()
    graphs = Graphs(torch.nn.Linear(2, 2), plays, limit=2)
    for length in (1, 2, 1, 3):
        for _ in range(SOON + 1):
            graphs(double, torch.ones(length))
    assert [key[1][0] for key in graphs.plays] == [(1,), (3,)]
    for _ in range(RECORDING + SOON + 1):  # it has to come oftener than at first
        assert plays.recorded == [[(length,)] for length in (1, 2, 3)]
        graphs(double, torch.ones(2))
    assert plays.recorded[3:] == [[(2,)]]


def test_what_cannot_be_recorded_goes_on_as_it_is():
    for problem in (RuntimeError("operation not permitted\nmore"), torch.OutOfMemoryError("CUDA out of memory")):
        plays = Plays(problem)
        graphs = Graphs(torch.nn.Linear(2, 2), plays)
        for k in range(SOON + 4):
            if k == SOON:
                said = f"double goes on without a CUDA graph: {str(problem).splitlines()[0]}$"
                with pytest.warns(RuntimeWarning, match=said):
                    results = graphs(double, torch.ones(2))
            else:
                results = graphs(double, torch.ones(2))
            assert [values.tolist() for values in results] == [[2, 2]]
        assert len(plays.recorded) == 1


@pytest.mark.slow
def test_a_recorded_detector_answers_as_without(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")  # as on a GPU: its checks wait for values
    detecting, *words = tiny_detector()
    plain, nouns = GroundingDino(detecting, *words), (["red ball", "dog"], ["blue ball", "cat"])

    def answers():
        seen = [words[1](images=[frame], return_tensors="pt") for frame in FRAMES[:5]]
        return [answer for asked in nouns for picture in seen for answer in plain._answers(picture, asked)]

    expected = answers()
    assert len({answer.boxes.numpy().tobytes() for answer in expected}) > len(expected) / 2
    recorder = Traced(detecting)
    graphs = Graphs(detecting, recorder)
    for _ in range(2):  # a second time it begins anew
        quick = GroundingDino(detecting, *words, graphs=True)  # on a CPU it records nothing
    parts = detecting.model.backbone.forward.forward, detecting.model.encoder.forward, detecting.model.decoder.forward
    for part in parts:
        assert part.graphs.record is None
        assert part.forward.__self__ in (detecting.model.backbone, detecting.model.encoder, detecting.model.decoder)
        part.graphs = graphs
    assert quick.model is detecting
    for alone, found in zip(expected, answers(), strict=True):
        assert torch.equal(alone.logits, found.logits)
        assert torch.equal(alone.boxes, found.boxes)
    assert not graphs.failed
    assert len(graphs.plays) == 3  # parts; all texts are of one length
    assert len(recorder.played) == 3 * (10 - SOON)


def test_a_recorded_part_takes_and_gives_whatever_it_does():
    plays, graphs = (
        [],
        Graphs(None, lambda function, inputs: lambda values: plays.append(len(values)) or function(*values)),
    )

    def part(first, sizes, *, other=None, flip=False):
        total = first.sum() + (0 if other is None else other.sum()) + sum(sizes)
        return {"total": -total if flip else total, "sizes": sizes, "nothing": None}

    recorded = Recorded(part, graphs)
    values = torch.arange(3.0)
    for _ in range(SOON + 2):
        for more in ({}, {"other": values}, {"flip": True}):
            for sizes in ([1, 2], [4, 8]):
                assert recorded(values, sizes, **more) == part(values, sizes, **more)
    assert sorted(plays) == [1] * 8 + [2] * 4
    assert len(recorded.functions) == 6


def test_no_graph_without_a_gpu():
    model = tiny_video_model()
    assert Sam2Tracker(model)._graphs.record is None
    assert Sam2Tracker(model)._graphs is not Sam2Tracker(model)._graphs
    tracker = Sam2Tracker(model)
    assert tracker._graphs is tracker._graphs


# On a GPU

ON_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA, reason="no CUDA device"),
    pytest.mark.filterwarnings("error::RuntimeWarning"),  # it was not recorded
]
DTYPES = [torch.float32, torch.bfloat16]
LIMIT = {torch.float32: 1e-3, torch.bfloat16: 2e-2}  # of a share of pixels, or of the largest value


def on_a_gpu(test):
    for mark in ON_A_GPU:
        test = mark(test)
    return test


@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_graphs_on_a_gpu_give_what_there_is_without(trained, dtype):
    model = trained.to("cuda", dtype)
    eager, tracker = Sam2Tracker(model, 4, graphs=False), Sam2Tracker(model, 4)
    other = FRAMES[::-1].copy()
    expected = {id(frames): eager.track(frames, SEEDS) for frames in (FRAMES, other)}
    # What one graph too few, or another video's memory, would make of it.
    assert np.mean(expected[id(FRAMES)] != expected[id(other)]) > 3 * LIMIT[dtype]
    for frames in (FRAMES, other, FRAMES, other):
        assert np.mean(tracker.track(frames, SEEDS) != expected[id(frames)]) < LIMIT[dtype]
    assert not eager._graphs.plays
    # The encoder for chunks of 4 frames and of one; steps with one to three frames remembered, and with all of them.
    assert Counter(key[0] for key in tracker._graphs.plays) == {encode: 2, advance: 4}
    assert torch.randn(2, device="cuda").isfinite().all()  # what recording changes for a while is as it was


@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_graphs_of_every_length_of_memory_on_a_gpu(trained, dtype):
    """One after another, each played with other values than it was recorded with, and after the others were."""
    model = trained.to("cuda", dtype)
    Graphs(model, None)  # position encodings are no longer kept
    record = Recorder(torch.device("cuda", torch.cuda.current_device()))
    here, there = (remembering(model, frames) for frames in (FRAMES, FRAMES[::-1].copy()))
    with torch.inference_mode():
        plays = [record(lambda *inputs: advance(model, *inputs), inputs) for inputs in here[:5]]
        for _ in range(2):
            for play, *both in zip(plays, here, there, strict=False):
                results = [play(inputs) for inputs in both]
                for inputs, found in zip(both, results, strict=True):
                    for a, b in zip(found, advance(model, *inputs), strict=True):
                        assert (a - b).abs().max() <= LIMIT[b.dtype] * b.abs().max()
                a, b = (found[0] for found in results)
                assert (a - b).abs().max() > 3 * LIMIT[dtype] * b.abs().max()


@on_a_gpu
def test_graphs_have_the_priority_of_where_they_are_recorded():
    for wanted in (0, -1):
        record = Recorder(torch.device("cuda"))
        with torch.cuda.stream(torch.cuda.Stream(priority=wanted)):
            play = record(lambda values: [values * 2], [torch.ones(2, device="cuda")])
            assert play([torch.arange(2.0, device="cuda")])[0].tolist() == [0, 2]
        assert record.stream.priority == wanted


@on_a_gpu
@pytest.mark.parametrize("quick", [False, True], ids=["eager", "recorded too"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_graphs_are_recorded_while_another_thread_detects(trained, dtype, quick):
    """As `prepare` has it: pictures are looked at in one thread while a video is tracked in another."""
    model = trained.to("cuda", dtype)
    detecting, *words = tiny_detector()
    detector = GroundingDino(detecting.to("cuda"), *words, box_threshold=0, text_threshold=0)
    picture = tiny_picture_model()
    picture.vision_encoder = model.vision_encoder
    seer = RealPerception(detector, Sam2(picture.to("cuda", dtype)), Sam2Tracker(model, 4), device="cuda")
    phrases = {1: "red ball", 2: "dog", 3: "blue cat"}
    alone = [seer.segment(frame, phrases) for frame in FRAMES]
    assert len({labels.tobytes() for labels in alone}) > 1
    if quick:
        recording = {"detector": replace(detector, graphs=True), "segmenter": replace(seer.segmenter, graphs=True)}
        seer = replace(seer, **recording)
    expected = Sam2Tracker(model, 4, graphs=False).track(FRAMES, SEEDS)
    done, looked = Event(), []

    def go_on():
        while not done.is_set():
            for frame in FRAMES:
                looked.append(seer.segment(frame, phrases))

    with ThreadPoolExecutor(1) as other:
        looking = other.submit(go_on)
        try:
            for _ in range(SOON + 2):
                assert np.mean(seer.tracker.track(FRAMES, SEEDS) != expected) < LIMIT[dtype]
                before = len(looked)
                while len(looked) < before + 2 and not looking.done():
                    time.sleep(0.01)
        finally:
            done.set()
        looking.result()
    assert Counter(key[0] for key in seer.tracker._graphs.plays) == {encode: 2, advance: 4}
    for number, labels in enumerate(looked):
        assert np.mean(labels != alone[number % len(FRAMES)]) < LIMIT[dtype]
    if quick:
        assert {key[0] for key in seer.segmenter._graphs.plays} == {look}
        assert len(detecting.model.decoder.forward.graphs.plays) == 3


@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_videos_at_a_time_on_a_gpu(trained, dtype):
    model = trained.to("cuda", dtype)
    videos = [FRAMES, FRAMES[::-1].copy()] * (SOON + 2)
    expected = [Sam2Tracker(model, 4, graphs=False).track(frames, SEEDS) for frames in videos[:2]]
    assert np.mean(expected[0] != expected[1]) > 3 * LIMIT[dtype]
    tracker = Sam2Tracker(model, 4)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda frames: tracker.track(frames, SEEDS), videos))
    for number, labels in enumerate(found):
        assert np.mean(labels != expected[number % 2]) < LIMIT[dtype]
    assert Counter(key[0] for key in tracker._graphs.plays) == {encode: 2, advance: 4}
