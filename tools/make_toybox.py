"""Makes the bundled model, on however many GPUs one machine has: draws, encodes, trains, chooses a guidance, evaluates.

    python tools/make_toybox.py --out out/toybox --init src/throughmask/models/toybox     # goes on from its stages
    python tools/make_toybox.py --out out/unet --backbone animatediff --films-of out/dit  # U-Nets, from another's films
    python tools/make_toybox.py --out out/toybox --tiny                                   # all steps in small, on a CPU

The presets of throughmask.train.presets train; what this adds is the order and the clock. Films are drawn by all cores
until their time is over, before they are encoded, as OpenGL and the VAE hinder each other on one GPU. Then stage 2 and
the segmenter learn on the second GPU and make room for the commands of `benches`, while stage 1's scenes are drawn and
encoded; it learns on the first GPU. Where there is one GPU, all of this shares it.
Times in the plan are seconds since the start, or since the step's start where it says so; --plan FILE.json replaces
fields of it, --print-plan shows them all.

OUT/export holds whatever is finished, from the moment it is (of the stages also every `export_every` steps), so that a
machine which is taken away leaves a model. The same command goes on where it stopped. OUT/log.txt tells what happened.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from throughmask.files import new_file
from throughmask.train.samples import Texts, ToyboxSamples, runs
from throughmask.types import MaskTrajectory, Sample, Scene, SceneObject, Video

COMMAND = [sys.executable, "-m", "throughmask"]
KINDS = {"films": "video", "labels": "motion"}  # what is drawn, and which stage goes on from there
PRESETS = {"wan": "toybox-", "animatediff": "toybox-unet-"}  # with "base", "motion", "video" behind
WHOLE = 32  # scenes of a shard of 64 items, mirrored ones counted
BUNDLE = {"--steps": 10, "--video-guidance": "1.5,1.5", "--least-psnr": 28}


@dataclass(frozen=True)
class Plan:
    """films, labels: runs of seeds (first, how many), drawn in turn, for so many seconds; without labels stage 1 learns
    from the films; without films nothing but a stage 1 of --init goes on. stages: what learns of "motion", "video",
    "leaky" (stage 1 again, for as many steps, without zero terminal SNR) and "ti2v" (beside stage 2, from words alone);
    of init's bundle the others stay.

    every: options of all stages, which drawing and encoding must know too: size, frames, dtype. *_until: when learning
    ends. motion, video, words, base: more options of their presets; null for words that stay.
    benches: name, command, seconds at most. guidances: tried on `sweep` validation scenes of several toys and half as
    many of one. splits: evaluated, with seeds of noise."""

    films: list[list[int]] = field(default_factory=lambda: [[0, 6000], [800_000, 4000], [900_000, 1000]])
    films_seconds: int = 90
    labels: list[list[int]] = field(default_factory=lambda: [[10_000, 40_000], [810_000, 10_000], [910_000, 5000]])
    labels_seconds: int = 120
    workers: int = 31
    encoders: int = 4
    motion_until: int = 1300
    video_until: int = 800
    words_until: int = 740
    motion: list[str] = field(default_factory=lambda: ["--decay", "0.6", "--export-every", "1500"])
    video: list[str] = field(default_factory=lambda: ["--decay", "0.7", "--lr", "5e-4", "--export-every", "1500"])
    words: list[str] | None = field(default_factory=lambda: ["--workers", "6"])
    base_until: int = 500
    stages: list[str] = field(default_factory=lambda: ["motion", "video"])
    every: dict[str, str] = field(default_factory=dict)
    base: list[str] = field(default_factory=list)
    benches: list[list[Any]] = field(default_factory=list)
    benches_until: int = 1310
    guidances: list[str] = field(default_factory=lambda: ["1.5,3", "1,3", "1.5,2", "2,4"])
    sweep: int = 48
    splits: list[list[str]] = field(default_factory=lambda: [["toybox-128", "0..2"], ["toybox-bystanders", "0..0"]])
    judges: int = 8  # processes on each GPU
    vocabulary: str = "toybox:0..399,900000..900099"  # whose words the bundle knows; a minute or two of one core
    end: int = 1570


TINY = Plan(
    films=[[0, 20], [800_000, 8], [900_000, 8]],
    films_seconds=60,
    labels=[[10_000, 400], [810_000, 100], [910_000, 50]],
    labels_seconds=15,
    workers=2,
    encoders=1,
    motion_until=0,
    video_until=0,
    words_until=0,
    base_until=0,
    every={
        "size": "64,64",
        "dtype": "float32",
        "compile": "false",
        "held_out": "toybox:1000000..1000000",
    },
    base=["--batch", "2", "--steps", "3"],
    motion=["--batch", "2", "--steps", "3", "--export-every", "2"],
    video=["--batch", "2", "--steps", "3", "--export-every", "2"],
    words=["--batch", "2", "--texts", "4", "--steps", "3", "--evaluate", "2", "--workers", "1"],
    benches=[["hello", [sys.executable, "-c", "print('hello')"], 60]],
    benches_until=100_000,
    guidances=["1,1"],
    sweep=2,
    splits=[],
    judges=1,
    vocabulary="",
    end=100_000,
)


# Drawing, before anything is encoded.


@dataclass(frozen=True)
class Drawn(ToyboxSamples):
    """Scenes that were drawn into files."""

    folder: Path = Path()

    def item(self, index: int) -> Sample:
        return self._read(index)[0]

    def texts(self, index: int) -> list[Texts]:
        return self._read(index)[1]

    def _read(self, index: int) -> tuple[Sample, list[Texts]]:
        frames, image, packed, shape, rest, texts = pickle.loads((self.folder / str(self.seeds[index])).read_bytes())
        labels = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
        prompt, motion, objects, fps = rest
        scene = Scene(image, labels[0], prompt, motion, tuple(SceneObject(*thing) for thing in objects))
        return Sample(scene, MaskTrajectory(labels, fps), None if frames is None else Video(frames, fps)), texts


def write(folder: Path, seed: int, sample: Sample, texts: list[Texts]) -> None:
    """Labels are small when they are packed; pixels are not worth the time."""
    assert sample.trajectory is not None
    scene, labels = sample.scene, sample.trajectory.labels
    objects = [(thing.id, thing.name, thing.prompt) for thing in scene.objects]
    rest = scene.prompt, scene.motion_prompt, objects, sample.trajectory.fps
    frames = None if sample.video is None else sample.video.frames
    content = pickle.dumps((frames, scene.image, zlib.compress(labels.tobytes(), 1), labels.shape, rest, texts), 5)
    (folder / f"{seed}.tmp").write_bytes(content)
    (folder / f"{seed}.tmp").rename(folder / str(seed))


def config_of(out: Path, kind: str, data: str) -> Any:
    """Of a run that reads the cache of a kind: the base's, where there is none yet."""
    from throughmask.train.presets import override, preset

    setting = setting_of(out)
    stage = KINDS[kind] if setting["init"] or kind == "labels" else "base"
    return override(preset(PRESETS[setting["backbone"]] + stage), own_options(out, kind, stage, data))


def setting_of(out: Path) -> dict[str, Any]:
    setting: dict[str, Any] = json.loads((out / "setting.json").read_text())
    return setting


def own_options(out: Path, kind: str, stage: str, data: str) -> dict[str, str]:
    """Beside the plan's: what drawing, encoding and training must agree on."""
    setting = setting_of(out)
    options = {"data": data, "cache": str(out / f"cache-{kind}"), **setting["every"]}
    if stage == "base":
        return options | {"words": setting["words"]}
    if (kind, stage) == ("films", "motion"):
        options |= {"films": "true", "variants": "2"}  # as the films' cache has it
    return options | ({"init": f"{setting['init']}/{stage}"} if setting["init"] else {"base": str(out / "base/model")})


def interleaved(ranges: Sequence[Sequence[int]]) -> list[int]:
    """The seeds of several runs in turn, each by its share: wherever it ends, the mixture is right."""
    places = sorted(((k + 0.5) / number, first + k) for first, number in ranges for k in range(number))
    return [seed for _, seed in places]


def draw_some(out: Path, kind: str, seeds: list[int], turn: Any, deadline: float, gl_device: int | None) -> None:
    """turn: whose seed is next, a number that all processes share: a slow one leaves no gap behind."""
    import torch

    from throughmask.train.latents import open_source
    from throughmask.train.stage import cache_of

    torch.set_num_threads(1)
    source = open_source(cache_of(config_of(out, kind, f"toybox:{seeds[0]}..{seeds[0]}")), gl_device)
    assert isinstance(source, ToyboxSamples)
    while time.time() < deadline:
        with turn.get_lock():
            number, turn.value = turn.value, turn.value + 1
        if number >= len(seeds):
            break
        seed = seeds[number]
        if not (out / kind / str(seed)).exists():
            one = replace(source, seeds=(seed,))
            write(out / kind, seed, one.item(0), one.texts(0))


def draw(out: Path, kind: str, ranges: Sequence[Sequence[int]], seconds: int, workers: int) -> None:
    """Write OUT/KIND/SEED until the time is over, and OUT/KIND.json: the longest start of each run that is there."""
    import multiprocessing

    import torch

    (out / kind).mkdir(exist_ok=True)
    begun, gpus, seeds = time.time(), torch.cuda.device_count(), interleaved(ranges)
    context = multiprocessing.get_context("spawn")
    turn, processes = context.Value("l", 0), []
    for k in range(workers):
        options = (out, kind, seeds, turn, begun + seconds, k % gpus if gpus else None)
        processes.append(context.Process(target=draw_some, args=options))
        processes[-1].start()
    for process in processes:
        process.join()
    done = {int(path.name) for path in (out / kind).iterdir() if path.name.isdecimal()}
    kept = []
    for first, number in ranges:
        missing = (k for k in range(number) if first + k not in done)
        kept.append([first, next(missing, number)])
    kept[0][1] -= sum(number for _, number in kept) % WHOLE
    total = sum(number for _, number in kept)
    data = "toybox:" + ",".join(f"{first}..{first + number - 1}" for first, number in kept if number > 0)
    with new_file(out / f"{kind}.json", force=True) as path:  # whole, for another run that waits for it
        path.write_text(json.dumps(data))
    print(f"{total} of {len(done)} {kind}, {len(done) / (time.time() - begun):.1f}/s: {data}")


def encode(out: Path, kind: str, rank: int, world: int, gpu: int) -> None:
    """This process's share of a cache."""
    import torch
    import torch.distributed as dist

    from throughmask.train.devices import Processes, to_channels_last
    from throughmask.train.latents import make_latents, open_source
    from throughmask.train.preview import on_device
    from throughmask.train.stage import cache_of, encoder_of
    from throughmask.train.subject import start

    torch.set_num_threads(2)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", gpu) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:  # several share a GPU, which NCCL refuses
        dist.init_process_group("gloo", init_method=f"file://{out}/meet-{kind}", rank=rank, world_size=world)
    config = config_of(out, kind, json.loads((out / f"{kind}.json").read_text()))
    subject, cache = start(config, print), cache_of(config)
    to_channels_last(subject.pipeline.vae)
    source = open_source(cache)
    assert isinstance(source, ToyboxSamples)
    drawn = Drawn(**{item.name: getattr(source, item.name) for item in fields(source)}, folder=out / kind)
    begun = time.time()
    with on_device(subject, device):
        encoder = encoder_of(config, subject, device)
        items = make_latents(cache, encoder, Path(config.cache), Processes(rank, world, device), source=drawn)
    print(f"{len(items)} items of {kind} in {time.time() - begun:.0f} s")


def words_source(data: str) -> str:
    """Ordinary scenes and twins: those whose toys all have names."""
    from throughmask.toybox.recipes import TRAINING_BYSTANDERS
    from throughmask.train.samples import seeds_of

    named = [seed for seed in seeds_of(data) if seed not in TRAINING_BYSTANDERS]
    return "toybox:" + ",".join(f"{first}..{last}" for first, last in runs(named))


def clips(out: Path, workers: int, words: Sequence[str]) -> None:
    """The films once more, as `train toybox-words` wants them, and its stories and held-out scenes."""
    from throughmask.cli.train import _pairs
    from throughmask.train.clips import origin_of
    from throughmask.train.devices import Processes
    from throughmask.train.presets import override, preset
    from throughmask.train.samples import seeds_of
    from throughmask.train.words import _scenes

    source = words_source(json.loads((out / "films.json").read_text()))
    seeds, folder = seeds_of(source), out / "clips"
    if not (folder / "source.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        drawn = Drawn(None, None, None, 1, None, True, seeds=seeds, folder=out / "films")
        shape = drawn.item(0).trajectory.labels.shape
        arrays = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (len(seeds), *full))
            for name, full in (("pixels", (*shape, 3)), ("labels", shape))
        }
        for k in range(len(seeds)):
            sample = drawn.item(k)
            arrays["pixels"][k], arrays["labels"][k] = sample.video.frames, sample.trajectory.labels
        (folder / "source.json").write_text(json.dumps(origin_of(source)))
    options = {**_pairs(list(words)), "clips": source, "cache": str(folder), "workers": str(workers)}
    _scenes(override(preset("toybox-words"), options), Processes.join("cpu"))


def sweep(model: Path, guidance: str, scenes: Sequence[int], out: Path) -> None:
    """Judge stage 1 alone on some scenes, one seed of noise each."""
    import torch

    from throughmask.cli.requests import parse_scales
    from throughmask.evaluate.benchmark import evaluate_scenes
    from throughmask.evaluate.scenes import Clip, make_cases
    from throughmask.evaluate.subjects import Stages

    place = {"device": "cuda", "dtype": "bfloat16"} if torch.cuda.is_available() else {}
    scales = parse_scales(guidance)
    form = {"frames": 25, "fps": Fraction(12), "steps": BUNDLE["--steps"], "guidance": scales}
    subject = Stages.load(model, None, apart=True, **place, **form)
    found = evaluate_scenes(scenes, lambda seeds: make_cases(seeds, Clip(), 1), subject, None, seeds=(0,))
    out.write_text(json.dumps([asdict(score) for score in found]))


# The order of all this.


class Run:
    def __init__(self, out: Path, plan: Plan, gpus: int) -> None:
        self.out, self.plan, self.gpus, self.begun = out, plan, gpus, time.time()
        self.export = out / "export"
        self.export.mkdir(parents=True, exist_ok=True)

    @property
    def now(self) -> float:
        return time.time() - self.begun

    def say(self, *words: object) -> None:
        line = f"[{self.now:6.0f}] {' '.join(map(str, words))}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as file:
            file.write(line + "\n")

    def call(self, name: str, command: Sequence[object], gpu: int | None = None, limit: float | None = None) -> bool:
        """Run a command with its own log; whether it ended well. One that is over its limit is ended."""
        begun, place = self.now, {}
        if gpu is not None and self.gpus:
            mine = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(self.gpus)))
            place = {"CUDA_VISIBLE_DEVICES": mine.split(",")[gpu % self.gpus]}
        log = self.out / f"{name}.log"
        with log.open("w") as file:
            words = [str(word) for word in command]
            process = subprocess.Popen(
                words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **place}, start_new_session=True
            )
            try:
                code: object = process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = "over its time"
        lines = log.read_text(errors="replace").strip().splitlines()
        self.say(f"{name}: {'done' if code == 0 else code} in {self.now - begun:.0f} s |", *lines[-1:])
        if code != 0:
            self.say(*("\n    " + line for line in lines[-12:]))
        return code == 0

    def own(self, name: str, *words: object, gpu: int | None = None, limit: float | None = None) -> bool:
        return self.call(name, [sys.executable, __file__, "--out", self.out, "--step", *words], gpu, limit)

    def together(self, *jobs: Callable[[], object]) -> None:
        """Several at once; what one raises is told and ends that one."""

        def guarded(job: Callable[[], object]) -> None:
            try:
                job()
            except Exception:
                self.say(traceback.format_exc())

        threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def has(self, path: str) -> bool:
        return (self.out / path).exists()

    def keep(self, *paths: str) -> None:
        """Copy what there is to export, each file or folder whole."""
        for path in paths:
            source, target = self.out / path, self.export / path.replace("/", "-")
            if not source.exists():
                continue
            beside = target.with_name(f".{target.name}")
            shutil.rmtree(beside, ignore_errors=True)
            if source.is_dir():
                shutil.copytree(source, beside)
                shutil.rmtree(target, ignore_errors=True)
            else:
                shutil.copy(source, beside)
            beside.rename(target)

    def keep_stage(self, name: str) -> None:
        self.keep(f"{name}/model/transformer", f"{name}/model/train.json", f"{name}/log.jsonl", f"{name}/sheets")

    def all(self) -> None:
        if self.plan.films:
            self.draw("films")
            self.together(lambda: self.encode("films"), self.clips)
        watching = threading.Event()
        exporter = threading.Thread(target=self.keep_exporting, args=(watching,))
        exporter.start()
        if not self.init:
            own = own_options(self.out, "films", "base", self.data("films"))
            self.train("base", "base", own, self.plan.base, 0, self.plan.base_until)
        self.together(self.first, self.second)
        watching.set()
        exporter.join()
        self.judge_all()
        self.say("all done")

    def clips(self) -> None:
        if self.plan.words is not None:
            self.own("clips", "clips", max(1, self.plan.workers // 2), self.json(self.plan.words))

    def draw(self, kind: str) -> None:
        if self.has(f"{kind}.json"):
            return
        if kind == "films" and setting_of(self.out)["films_of"]:
            self.take_films(Path(setting_of(self.out)["films_of"]))
            return
        scenes = self.json(getattr(self.plan, kind))
        self.own(f"draw-{kind}", "draw", kind, scenes, self.seconds(kind), self.plan.workers)

    def take_films(self, other: Path) -> None:
        """Those of another run, which may have begun at the same time."""
        if not (other / "films.json").is_file():
            self.say("waits for the films of", other)
        while not (other / "films.json").is_file():
            time.sleep(1)
        ours, theirs = setting_of(self.out)["every"], setting_of(other)["every"]
        if ours != theirs:
            raise SystemExit(f"{other} drew its films with {theirs} for every stage, this plan says {ours}")
        if not self.has("films"):
            (self.out / "films").symlink_to(other / "films")
        shutil.copy(other / "films.json", self.out)
        self.say("films of", other, (self.out / "films.json").read_text())

    def encode(self, kind: str) -> None:
        world = self.plan.encoders * max(1, self.gpus)
        (self.out / f"meet-{kind}").unlink(missing_ok=True)
        shares = range(world)
        self.together(
            *(
                lambda rank=rank: self.own(
                    f"encode-{kind}-{rank}", "encode", kind, rank, world, rank % (self.gpus or 1)
                )
                for rank in shares
            )
        )

    def first(self) -> None:
        """Stage 1; scenes of its own are drawn while stage 2 learns already."""
        if "motion" not in self.plan.stages:
            return
        kind = "labels" if self.plan.labels else "films"
        if self.plan.labels:
            self.draw("labels")
            self.encode("labels")
        own = own_options(self.out, kind, "motion", self.data(kind))
        self.train("motion", "motion", own, self.plan.motion, 0, self.plan.motion_until)
        self.keep_stage("motion")
        if "leaky" in self.plan.stages and not self.has("leaky/model"):
            self.leaky(own)

    def leaky(self, own: dict[str, str]) -> None:
        """Stage 1 again, on a noise schedule that leaves some of the signal at its end."""
        base = self.out / "base-leaky"
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(self.out / "base/model", base)
        path = base / "scheduler/scheduler_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_betas_zero_snr": False}))
        steps = json.loads((self.out / "motion/model/train.json").read_text())["step"]
        more = [*self.plan.motion, "--steps", str(steps)]
        self.train("leaky", "motion", {**own, "base": str(base)}, more, 0, None)
        self.keep_stage("leaky")

    def second(self) -> None:
        """What shares the second GPU: a segmenter does not fill one."""
        more = {"video": self.plan.video, "ti2v": [*self.plan.video, "--recipe", "ti2v"]}

        def learn(name: str) -> None:
            own = own_options(self.out, "films", "video", self.data("films"))
            self.train(name, "video", own, more[name], 1, self.plan.video_until)

        self.together(*(partial(learn, name) for name in more if name in self.plan.stages), self.learn_words)
        for name in more:
            self.keep_stage(name)
        self.keep("words")
        for name, command, seconds in self.plan.benches:
            left = min(seconds, self.plan.benches_until - self.now)
            if left > 20:
                self.call(f"bench-{name}", [str(word).replace("OUT", str(self.export)) for word in command], 1, left)

    def learn_words(self) -> None:
        if self.plan.words is None or self.has("words/segmenter"):
            return
        options = {"clips": words_source(self.data("films")), "cache": self.out / "clips", "encoder": self.words}
        options |= {"out": self.out / "words", "minutes": self.minutes(self.plan.words_until)}
        self.call("words", [*COMMAND, "train", "toybox-words", *as_words(options), *self.plan.words], 1)

    def train(
        self, name: str, stage: str, own: dict[str, Any], more: Sequence[str], gpu: int, until: float | None
    ) -> None:
        """until: when it ends; None: after the steps that `more` says."""
        if self.has(f"{name}/model"):
            return
        options = {"out": self.out / name, "steps": 1_000_000, "sheet-every": 1_000_000, **own}
        options |= {} if until is None else {"minutes": self.minutes(until)}
        preset = PRESETS[setting_of(self.out)["backbone"]] + stage
        self.call(name, [*COMMAND, "train", preset, *as_words(options), *more], gpu)

    def minutes(self, until: float) -> str:
        return f"{max(0.2, (until - self.now) / 60):.2f}"

    def keep_exporting(self, done: threading.Event) -> None:
        """The newest weights of the stages while they learn."""
        while not done.wait(20):
            for name in ("base", "motion", "leaky", "video", "ti2v"):
                try:
                    self.keep_stage(name)
                except OSError as error:  # it was being replaced at that moment
                    self.say("not exported:", error)

    def judge_all(self) -> None:
        """The bundle on all splits, what is compared with it on the first."""
        motion, video = self.stage("motion"), self.stage("video")
        best = self.sweep() if motion.exists() else self.plan.guidances[0]
        models: dict[str, list[object]] = {}
        if motion.exists() and video.exists():
            self.bundle(motion, video, best)
            models["scores"] = ["--model", self.out / "bundle"]
        how = ["--steps", BUNDLE["--steps"], "--guidance", best]
        if self.has("leaky/model"):
            models["leaky"] = ["--motion", self.out / "leaky/model", *how, "--apart"]
        if self.has("ti2v/model"):
            models["ti2v"] = ["--video", self.out / "ti2v/model", *how, "--perception", self.segmenter]
        for name, model in models.items():
            for split, seeds in self.plan.splits[: None if name == "scores" else 1]:
                if self.plan.end - self.now > 30:
                    self.judge(f"{name}-{split}", split, seeds, model)

    def bundle(self, motion: Path, video: Path, guidance: str) -> None:
        shutil.rmtree(self.out / "bundle", ignore_errors=True)
        habits = [word for pair in BUNDLE.items() for word in pair] + ["--size", self.size, "--apart"]
        habits += ["--guidance", guidance]
        habits += ["--vocabulary", self.plan.vocabulary] if self.plan.vocabulary else []
        stages = ("--motion", motion, "--video", video, "--words", self.segmenter)
        self.call("bundle", [*COMMAND, "bundle", *stages, *habits, "--out", self.out / "bundle"])
        self.keep("bundle/model.json", "bundle")

    def sweep(self) -> str:
        from throughmask.evaluate.scores import SceneScore, Scores

        if len(self.plan.guidances) == 1:
            return self.plan.guidances[0]
        (self.out / "sweep").mkdir(exist_ok=True)
        number, parts = self.plan.sweep, 2
        scenes = [1_150_000 + k for k in range(number)] + [1_050_000 + k for k in range(number // 2)]
        jobs = [(guidance, part) for guidance in self.plan.guidances for part in range(parts)]
        self.together(
            *(
                lambda k=k, g=g, part=part: self.own(
                    f"sweep-{k}",
                    "sweep",
                    self.stage("motion"),
                    g,
                    self.json(scenes[part::parts]),
                    f"{g}@{part}",
                    gpu=k,
                    limit=150 if self.gpus else None,
                )
                for k, (g, part) in enumerate(jobs)
            )
        )
        ranks = {}
        for guidance in self.plan.guidances:
            paths = sorted((self.out / "sweep").glob(f"{guidance}@*.json"))
            found = tuple(SceneScore(**score) for path in paths for score in json.loads(path.read_text()))
            scores = Scores("sweep", (0,), found)
            means = {
                f"{group} {measure}": getattr(scores.mean("motion", "model", measure, group), "value", float("nan"))
                for group in ("single", "multi")
                for measure in ("motion", "iou")
            }
            ranks[guidance] = float(np.nansum([*means.values()]))
            if len(found) < len(scenes):
                ranks[guidance] = float("-inf")  # judged on other scenes than the rest
            self.say(f"guidance {guidance}:", {name: round(value, 3) for name, value in means.items()}, len(found))
        return max(ranks, key=ranks.__getitem__)

    def judge(self, name: str, split: str, seeds: str, model: Sequence[object]) -> None:
        parts = self.plan.judges * max(1, self.gpus)
        command = [*COMMAND, "evaluate", split, *model, "--out", self.out / name, "--seeds", seeds]
        command += ["--size", self.size, "--workers", 1]
        gl = (lambda k: ["--gl-device", k % self.gpus]) if self.gpus else (lambda k: [])
        limit = self.plan.end - self.now
        self.together(
            *(
                lambda k=k: self.call(f"judge-{name}-{k}", [*command, "--part", f"{k}/{parts}", *gl(k)], k, limit)
                for k in range(parts)
            )
        )
        self.keep(f"{name}/results.jsonl")

    @property
    def init(self) -> str:
        return str(setting_of(self.out)["init"])

    @property
    def words(self) -> str:
        """Whose text encoder, and where none is learnt whose segmenter, is used."""
        return str(setting_of(self.out)["words"])

    @property
    def size(self) -> str:
        return str(setting_of(self.out)["every"].get("size", "256,256")).replace(",", "x")

    @property
    def segmenter(self) -> Path:
        return Path(self.words) if self.plan.words is None else self.out / "words"

    def stage(self, name: str) -> Path:
        return self.out / name / "model" if name in self.plan.stages else Path(self.init or "nowhere") / name

    def data(self, kind: str) -> str:
        data: str = json.loads((self.out / f"{kind}.json").read_text())
        return data

    def seconds(self, kind: str) -> int:
        return self.plan.films_seconds if kind == "films" else self.plan.labels_seconds

    @staticmethod
    def json(value: Any) -> str:
        return json.dumps(value)


def as_words(options: dict[str, Any]) -> list[object]:
    return [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]


def step(out: Path, words: Sequence[str]) -> None:
    """One step, in a process of its own."""
    match words:
        case ["draw", kind, ranges, seconds, workers]:
            draw(out, kind, json.loads(ranges), int(seconds), int(workers))
        case ["encode", kind, rank, world, gpu]:
            encode(out, kind, int(rank), int(world), int(gpu))
        case ["clips", workers, more]:
            clips(out, int(workers), json.loads(more))
        case ["sweep", model, guidance, scenes, name]:
            sweep(Path(model), guidance, json.loads(scenes), out / "sweep" / f"{name}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="", help="a bundle whose stages are gone on from")
    parser.add_argument(
        "--words", default="", help="whose text encoder is used: by default --init's or the bundled one"
    )
    parser.add_argument("--backbone", choices=PRESETS, default="wan")
    parser.add_argument("--films-of", type=Path, help="another run, whose films are taken instead of drawing some")
    parser.add_argument("--plan", type=Path, help="fields of the plan, as JSON")
    parser.add_argument("--print-plan", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    out = args.out.resolve()
    if args.step:
        step(out, args.step)
        return
    import torch

    from throughmask.stages.bundle import DEFAULT_MODEL, find_model

    plan = replace(TINY if args.tiny else Plan(), **(json.loads(args.plan.read_text()) if args.plan else {}))
    if args.print_plan:
        print(json.dumps(asdict(plan), indent=1))
        return
    run = Run(out, plan, torch.cuda.device_count())
    words = args.words or args.init or str(find_model(DEFAULT_MODEL))
    films_of = str(args.films_of.resolve()) if args.films_of else ""
    setting = {"init": args.init, "words": words, "backbone": args.backbone, "every": plan.every, "films_of": films_of}
    (out / "setting.json").write_text(json.dumps(setting))
    run.say("begins with", json.dumps(asdict(plan)))
    run.all()


if __name__ == "__main__":
    main()
