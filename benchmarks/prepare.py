"""Times `prepare`: what the engine costs beside its models, how two machines scale, and the true models on a GPU.

    python benchmarks/prepare.py --out out/prepare                          # delays for models; CPU, ten minutes
    python benchmarks/prepare.py --only h200 --out out/prepare-h200         # true shapes, random weights; needs a GPU
    python benchmarks/prepare.py --only h200 --tiny --out out/prepare-tiny  # the same at a small size on the CPU
    python benchmarks/prepare.py --only h200 --profile                      # and what its time goes to
    python benchmarks/prepare.py --only h200 --profile --at-once 2 3 --switch 0.5    # other threads, other turns
    python benchmarks/prepare.py --only long --out out/prepare-long         # ten minutes of 1080p on the CPU: memory

Clips are synthetic videos with captions that name two objects. `here` is one process, `ray` the same with --ray local,
`raylets` Ray's cluster utility with one and then two raylets, each with one place for models. There a model sleeps for
about as long as SAM 2.1 large and Grounding DINO base may take on a data-centre GPU, and its masks are boxes that move.
Overhead is wall time over what the models would take without an engine: `at work` from the first model's beginning to
the last one's end, and `of all` with the start (of Ray and its actors, cutting, the first decoding) and the end (the
last writing). In one process the next clip's objects are looked for while this one's are followed, so that of the two
only the longer counts, but for the first picture and the last clip; with Ray both do.

`h200` runs the real networks and gives clips a second, the share of time in which the GPU was busy (NVML's, every
0.2 s), and the memory beside the weights by length of clips; with --profile also where the threads stand while the GPU
has nothing to do. Two networks may be called at a time and then hold each other up, so what is told there is the wall
time over the time in which at least one of them is called. The start and the end of a run, about a second in which no
network works, count as well: with few clips they show.

`long` prepares one long film with tiny networks of the real classes, and watches the memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from throughmask.media import write_video
from throughmask.perception.language import EnglishRules
from throughmask.prepare.cluster import Pools
from throughmask.prepare.config import Config, Cutting
from throughmask.prepare.engine import prepare
from throughmask.prepare.making import Tools
from throughmask.prepare.progress import Progress
from throughmask.prepare.sources import open_source
from throughmask.synthetic import make_sample

CAPTION = "the red ball rolls to the right and the blue block slides to the right"
FILMS = 4  # different ones; clips beyond are copies
PARTS = ("here", "ray", "raylets")
GIB = 2**30


def moving_boxes(frames: int, size: tuple[int, int], ids: Mapping[int, str]) -> np.ndarray:
    """Labels uint8 T H W: a box for each id, one below the other, a quarter of the width to the right in all."""
    height, width = size
    labels = np.zeros((frames, height, width), np.uint8)
    tall = height // (len(ids) + 1)
    for place, id in enumerate(ids):
        for t in range(frames):
            left = width // 8 + (width // 4) * t // max(1, frames - 1)
            labels[t, place * tall + tall // 4 : (place + 1) * tall, left : left + width // 4] = id
    return labels


@dataclass(frozen=True)
class Delays:
    """A perception that sleeps: `detect` seconds for a picture, `frame` for each frame that it follows.

    log: a file to which it appends when it begins and ends, in seconds of the clock that all processes share.
    """

    detect: float
    frame: float
    log: Path

    def segment(self, image: np.ndarray, phrases: Mapping[int, str], hints: Any = None) -> np.ndarray:
        return self._slept(self.detect, image[None], phrases)[0]

    def track(self, frames: np.ndarray, phrases: Mapping[int, str], first: Any = None) -> np.ndarray:
        return self._slept(self.frame * len(frames), frames, phrases)

    def _slept(self, seconds: float, frames: np.ndarray, phrases: Mapping[int, str]) -> np.ndarray:
        begun = time.time()
        labels = moving_boxes(len(frames), frames.shape[1:3], phrases)
        time.sleep(max(0.0, begun + seconds - time.time()))
        with self.log.open("a") as file:
            file.write(f"{begun} {time.time()}\n")
        return labels


def write_films(folder: Path, clips: int, size: tuple[int, int], frames: int) -> None:
    folder.mkdir(parents=True)
    for number in range(clips):
        path = folder / f"clip{number:04d}.mp4"
        if number < FILMS:
            write_video(path, make_sample(number, size=size, frames=frames).video)
        else:
            shutil.copy(folder / f"clip{number % FILMS:04d}.mp4", path)
        path.with_suffix(".txt").write_text(CAPTION)


def timed(
    source: Path,
    frames: int,
    open_tools: Callable[[], Tools],
    pools: Pools | None,
    watched: AbstractContextManager[Any] | None = None,
) -> dict[str, Any]:
    """One preparation from nothing, in numbers. begun, ended: of the clock that all processes share.

    watched: entered meanwhile.
    """
    config, progress = Config("find", Cutting(frames=frames, shots=False)), Progress()
    with tempfile.TemporaryDirectory(dir=source.parent) as out, watched or nullcontext():
        begun, inputs = time.time(), open_source(source)
        totals = prepare(inputs, Path(out) / "out", config, open_tools, progress=progress, pools=pools)
        ended = time.time()
    if totals.samples != totals.clips:
        raise SystemExit(f"not every clip became a Sample: {totals}")
    steps = {name: round(spent / times, 4) for name, (times, spent) in progress.steps.items()}
    return {"clips": totals.clips, "begun": begun, "ended": ended, "wall_s": ended - begun, "steps_s": steps}


def asleep(row: dict[str, Any], slept: float, log: Path) -> dict[str, Any]:
    """What a row says of the engine. slept: seconds that the models take if nothing ever holds them up."""
    times = np.array([[float(word) for word in line.split()] for line in log.read_text().splitlines()])
    log.unlink()
    first, last = times.min(), times.max()
    parts = {"start_s": first - row["begun"], "work_s": last - first, "end_s": row["ended"] - last}
    overheads = {"overhead": parts["work_s"] / slept - 1, "overhead_of_all": row["wall_s"] / slept - 1}
    return row | {"models_s": slept} | parts | overheads


@contextmanager
def raylets(number: int) -> Iterator[str]:
    """The address of a cluster on this machine: a head, and `number` raylets with one place for models each."""
    import ray
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 4 * GIB}  # with 1, five batches of 480×854, Ray holds decoding back
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
    try:
        for _ in range(number):
            cluster.add_node(num_cpus=8, num_gpus=1, **store)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def engine(args: argparse.Namespace, folder: Path, result: dict[str, Any], keep: Callable[[], None]) -> None:
    size, frames, log = args.size, args.frames, folder / "times"
    follow = args.frame * frames
    one_by_one, side_by_side = (args.detect + follow) * args.clips, max(args.detect, follow) * (args.clips - 1)
    source = folder / "clips"
    write_films(source, args.clips, size, frames)
    open_tools = partial(Tools, EnglishRules(), Delays(args.detect, args.frame, log))
    result["clips"] = {"size": list(size), "frames": frames, "detect_s": args.detect, "frame_s": args.frame}
    if "here" in args.only:
        result["here"] = asleep(timed(source, frames, open_tools, None), args.detect + side_by_side + follow, log)
        keep()
    if "ray" in args.only:
        result["ray"] = asleep(timed(source, frames, open_tools, Pools()), one_by_one, log)
        keep()
    if "raylets" in args.only:
        for number in (1, 2):
            with raylets(number) as address:
                pools = Pools(address, decoders=2 * number, seers=number, writers=2 * number, gpus=1)
                row = timed(source, frames, open_tools, pools)
            result[f"raylets_{number}"] = asleep(row, one_by_one / number, log)
            keep()
        one, two = result["raylets_1"], result["raylets_2"]
        result["scaling"] = {"work": one["work_s"] / two["work_s"], "all": one["wall_s"] / two["wall_s"]}
        keep()


class Parts:
    """Times what is called, from any thread: how often, wall seconds, and seconds in which the thread itself was at
    work. The rest it waited, for the device or for its turn: threads share one interpreter.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}
        self.lock = threading.Lock()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            wall, own = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = [1, time.perf_counter() - wall, time.thread_time() - own]
                with self.lock:
                    self.rows[name] = [a + b for a, b in zip(self.rows.get(name, [0, 0, 0]), spent, strict=True)]

        return called

    def table(self) -> str:
        lines = ["|part|times|wall ms|own ms|", "|---" * 4 + "|"]
        for name, (times, wall, own) in self.rows.items():
            lines.append(f"|{name}|{times:.0f}|{1e3 * wall / times:.1f}|{1e3 * own / times:.1f}|")
        return "\n".join(lines)


class Idle:
    """Looks, every few milliseconds, where all threads stand while the device has nothing to do.

    idle: whether the device has done all that it was given. A thread that does not let go of the interpreter delays the
    next look: `late` (seconds a look) says how much was not seen.
    """

    def __init__(self, idle: Callable[[], bool], every: float = 0.003) -> None:
        self.idle, self.every = idle, every
        self.looks, self.late = 0, 0.0
        self.together: Counter[str] = Counter()
        self.places: Counter[str] = Counter()

    @contextmanager
    def watched(self) -> Iterator[None]:
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,))
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def _watch(self, stop: threading.Event) -> None:
        own, due = threading.get_ident(), time.perf_counter() + self.every
        while not stop.wait(max(0.0, due - time.perf_counter())):
            self.looks += 1
            self.late += time.perf_counter() - due
            if self.idle():
                stacks = [where(frame) for thread, frame in sys._current_frames().items() if thread != own]
                self.together["; ".join(sorted(ours for ours, _ in stacks if ours))] += 1
                self.places.update({f"{ours}, {inner}" for ours, inner in stacks if ours})
            due = time.perf_counter() + self.every

    def table(self, rows: int = 12) -> str:
        idle, looks = self.together.total(), max(1, self.looks)
        lines = [
            f"Nothing to do for the device in {idle / looks:.0%} of {self.looks} looks ({self.late / looks:.4f} s late)"
        ]
        for title, counts in (("all threads that do something", self.together), ("one of them", self.places)):
            lines += ["", f"|of these|{title}|", "|---" * 2 + "|"]
            lines += [f"|{times / idle:.0%}|{stacks}|" for stacks, times in counts.most_common(rows)]
        return "\n".join(lines)


def where(frame: Any) -> tuple[str, str]:
    """Where a thread stands: the innermost function of the package, and what is called there; "" if it has no work."""
    stack = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        stack.append((path, f"{path.stem}.{frame.f_code.co_name}", frame.f_lineno))
        frame = frame.f_back
    ours = next((name for path, name, _ in stack if "throughmask" in path.parts), "")
    return ours, f"{stack[0][1]}:{stack[0][2]}"


class Networks:
    """The real classes with random weights. What they find is thrown away: masks are boxes, as for `Delays`.

    seconds: for which at least one of them was called.
    """

    def __init__(self, tiny: bool, size: tuple[int, int] | None = None, *, graphs: str = "all") -> None:
        import perception as shapes
        import torch

        from throughmask.perception.real.perception import aside

        shape = shapes.TINY if tiny else shapes.TRUE
        height, width = size or shape.size
        self.shapes, self.shape = shapes, replace(shape, size=(height // 2 * 2, width // 2 * 2))  # as H.264 has it
        self.detector = replace(shapes.detector_of(shape), graphs=graphs == "all")
        self.tracker = shapes.Sam2Tracker(shapes.video_model(shape, shape.dtype), graphs=graphs != "none")
        picture = shapes.picture_model(shape, shape.dtype)
        picture.vision_encoder = self.tracker.model.vision_encoder  # as RealPerception has it
        self.segmenter = shapes.Sam2(picture, graphs == "all")
        self.aside = aside
        self.seconds, self.calls, self.begun, self.lock = 0.0, 0, 0.0, threading.Lock()
        self.cuda = torch.cuda if shape.device == "cuda" else None

    def segment(self, image: np.ndarray, phrases: Mapping[int, str], hints: Any = None) -> np.ndarray:
        boxes = zip(phrases, self.shapes.boxes_of(self.shape, len(phrases)), strict=True)
        with self.called(), self.aside(self.segmenter.model.device):  # as RealPerception does
            self.detector.detect(image, phrases)
            self.segmenter.segment(image, {id: self.shapes.Prompt(box=box) for id, box in boxes})
        return moving_boxes(1, image.shape[:2], phrases)[0]

    def track(self, frames: np.ndarray, phrases: Mapping[int, str], first: Any = None) -> np.ndarray:
        start = moving_boxes(1, frames.shape[1:3], phrases)[0]
        seeds = {id: self.shapes.Seed(0, self.shapes.Prompt(mask=start == id)) for id in phrases}
        with self.called():
            self.tracker.track(frames, seeds)
        return moving_boxes(len(frames), frames.shape[1:3], phrases)

    @contextmanager
    def called(self) -> Iterator[None]:
        """Threads call them at the same time."""
        with self.lock:
            self.calls += 1
            if self.calls == 1:
                self.begun = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.calls -= 1
                if not self.calls:
                    self.seconds += time.perf_counter() - self.begun

    def timed(self, parts: Parts) -> None:
        """From now on `parts` has the time of each part."""
        for owner, names in {
            self.detector: ("image_processor", "_answers", "_candidates", "detect"),
            self.segmenter: ("masks",),
            self.tracker: ("track",),
        }.items():
            for name in names:  # frozen, but no less timed
                object.__setattr__(owner, name, parts.timed(f"{type(owner).__name__}.{name}", getattr(owner, name)))

    def idle(self) -> bool:
        """Whether both streams have done all that they were given. Without a GPU: always, which shows what is told."""
        if self.cuda is None:
            return True
        with self.aside(self.segmenter.model.device):
            aside = self.cuda.current_stream()
        return bool(self.cuda.default_stream().query() and aside.query())

    def warm_up(self, frames: int) -> None:
        """Whatever is loaded in the first clip, or recorded as a CUDA graph in the one after SOON: each length of a
        chunk and of what is remembered comes at least once a clip of so many frames.
        """
        from throughmask.perception.real.graphs import SOON

        chunk, phrases = self.tracker.chunk, {1: "red ball", 2: "blue block"}  # as CAPTION has them
        enough = self.tracker.window + 2 * chunk
        black = np.zeros((min(frames, enough + (frames - enough) % chunk), *self.shape.size, 3), np.uint8)
        for _ in range(SOON + 1):
            self.segment(black[0], phrases)
            self.track(black, phrases)
        self.seconds = 0.0


@contextmanager
def gpu_watched(uuid: str | None, seen: dict[str, Any]) -> Iterator[None]:
    """seen["busy"]: the share of time in which a kernel was at work, by NVML's samples; None without a GPU. uuid: of
    it; its number among all need not be its number among those that this process sees."""
    seen["busy"] = None
    if uuid is None:
        yield
        return
    command = ["nvidia-smi", "-i", f"GPU-{uuid}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    process = subprocess.Popen([*command, "-lms", "200"], stdout=subprocess.PIPE, text=True)
    samples: list[float] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: samples.extend(float(line) for line in process.stdout or ()))
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        reader.join()
    seen |= {"busy": sum(samples) / len(samples) / 100 if samples else None, "samples": len(samples)}


@contextmanager
def all_watched(uuid: str | None, seen: dict[str, Any], idle: Idle | None) -> Iterator[None]:
    with gpu_watched(uuid, seen), nullcontext() if idle is None else idle.watched():
        yield


def networks(args: argparse.Namespace, folder: Path, result: dict[str, Any], keep: Callable[[], None]) -> None:
    import torch

    seer = Networks(args.tiny, graphs=args.graphs)
    cuda, size = seer.cuda, seer.shape.size
    weights = cuda.memory_allocated() if cuda else 0
    uuid = str(cuda.get_device_properties(0).uuid) if cuda else None
    lengths = (17, 25) if args.tiny else tuple(dict.fromkeys((41, args.frames)))
    result["machine"] = cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    result |= {"torch": torch.__version__, "size": list(size), "weights_MiB": weights / 2**20, "h200": []}
    if args.switch:
        sys.setswitchinterval(args.switch / 1e3)
    parts = Parts()
    if args.profile:
        seer.timed(parts)
    for frames, at_once in product(lengths, args.at_once or [2 if cuda else 1]):
        source = folder / f"clips{frames}"
        if not source.exists():
            write_films(source, 3 if args.tiny else args.clips, size, frames)
        seer.warm_up(frames)
        parts.rows.clear()
        if cuda:
            cuda.reset_peak_memory_stats()
        tools, idle, seen = Tools(EnglishRules(), seer, at_once=at_once), Idle(seer.idle), dict[str, Any]()
        watched = all_watched(uuid, seen, idle if args.profile else None)
        row = timed(source, frames, lambda tools=tools: tools, None, watched)
        row |= {"frames": frames, "at_once": at_once, "clips_s": row["clips"] / row["wall_s"], "models_s": seer.seconds}
        row |= {"overhead": row["wall_s"] / seer.seconds - 1}
        held = (cuda.max_memory_allocated() - weights) / 2**20 if cuda else None
        row |= {"gpu_busy": seen["busy"], "above_weights_MiB": held, "host_MiB": most_memory()}
        # Graphs keep memory in which nothing is allocated: what is reserved, all in all, says how large a GPU must be.
        row |= {"reserved_MiB": cuda.max_memory_reserved() / 2**20 if cuda else None}
        row |= {"graphs": len(seer.tracker._graphs.plays)}
        result["h200"].append(row)
        keep()
        if args.profile:
            told = f"{frames} frames, {at_once} at once; steps {row['steps_s']}"
            print(f"{told}\n\n{parts.table()}\n\n{idle.table()}\n", flush=True)
    if args.profile:
        print(profiled(seer))


def profiled(seer: Networks, rows: int = 25) -> str:
    """Tables of what takes the time of tracking two objects through a chunk of frames: the GPU's, if there is one, and
    the process's."""
    from torch.profiler import ProfilerActivity, profile

    tracker, size, phrases = seer.tracker, seer.shape.size, {1: "ball", 2: "block"}
    length = tracker.window + 2 * tracker.chunk  # it is a chunk ahead of the masks that it gives
    video = np.random.default_rng(0).integers(0, 256, (length, *size, 3), np.uint8)
    start = moving_boxes(1, size, phrases)[0]
    seeds = {id: seer.shapes.Seed(0, seer.shapes.Prompt(mask=start == id)) for id in phrases}
    followed = tracker.follow(video, seeds, range(length))
    for _ in islice(followed, tracker.window):  # SAM 2 remembers as much then as it ever does
        pass

    def wait() -> None:
        if seer.cuda:
            seer.cuda.synchronize()

    wait()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if seer.cuda else [])]) as seen:
        begun = time.perf_counter()
        for _ in islice(followed, tracker.chunk):
            pass
        wait()
        seconds = time.perf_counter() - begun
    lines = [f"{tracker.chunk} frames in {seconds:.3f} s while they are profiled."]
    for key in [*(["self_device_time_total"] if seer.cuda else []), "self_cpu_time_total"]:
        lines.append(seen.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=80))
    return "\n".join(lines)


def write_long(path: Path, frames: int, fps: int) -> None:
    """1080p: a block that moves to the right, the same eight pictures again and again."""
    import av

    scene = np.empty((1080, 1920, 3), np.uint8)
    scene[:] = np.linspace(60, 180, 1920).astype(np.uint8)[:, None]
    pictures = []
    for k in range(8):
        shown = scene.copy()
        shown[400:700, 200 + 40 * k : 500 + 40 * k] = (200, 40, 40)
        pictures.append(av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format="yuv420p"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for t in range(frames):
            picture = pictures[t % 8]
            picture.pts = t
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    path.with_suffix(".txt").write_text("the red block slides to the right")


class Memory(Progress):
    """Tells after each clip how much memory the process holds, and held at most, in MiB."""

    def __init__(self, tell: Callable[[float, float], None]) -> None:
        super().__init__()
        self.tell = tell

    def step(self, seconds: Mapping[str, float], *, rejected: bool = False) -> None:
        super().step(seconds, rejected=rejected)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        if self.name == "clips":
            self.tell(round(pages * resource.getpagesize() / 2**20), most_memory())


def most_memory() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def long_film(args: argparse.Namespace, folder: Path, result: dict[str, Any], keep: Callable[[], None]) -> None:
    seer, frames = Networks(True, (1080, 1920)), round(args.minutes * 60 * args.fps)
    (folder / "long").mkdir()
    write_long(folder / "long" / "film.mp4", frames, args.fps)
    row: dict[str, Any] = {"minutes": args.minutes, "fps": args.fps, "frames": frames, "clip_frames": args.frames}
    row |= {"before_MiB": most_memory(), "held_MiB": [], "peak_MiB": []}
    result["long"] = row
    begun = time.perf_counter()

    def tell(held: float, most: float) -> None:
        row["held_MiB"].append(held)
        row["peak_MiB"].append(most)
        row["wall_s"] = time.perf_counter() - begun
        keep()

    config = Config("find", Cutting(frames=args.frames, shots=False))
    tools = Tools(EnglishRules(), seer)
    totals = prepare(open_source(folder / "long"), folder / "prepared", config, lambda: tools, progress=Memory(tell))
    row |= {"samples": totals.samples, "rejects": dict(totals.reasons)}
    keep()


def to_table(result: dict[str, Any]) -> str:
    lines = [f"{result['machine']}; load {result['load']} at the start; {result['seconds']} s in all"]
    if "clips" in result:
        about = result["clips"]
        height, width = about["size"]
        lines += [
            "",
            f"Clips of {about['frames']} frames, {height}×{width}; models sleep {about['detect_s']} s for a clip and "
            f"{about['frame_s']} s for a frame.",
            "",
            "|run|clips|models s|wall s|of it start s|at work s|end s|overhead at work|of all|",
            "|---" * 9 + "|",
        ]
        for name in ("here", "ray", "raylets_1", "raylets_2"):
            if name in result:
                row = result[name]
                cells = [f"{row[key]:.1f}" for key in ("models_s", "wall_s", "start_s", "work_s", "end_s")]
                cells = [str(row["clips"]), *cells, f"{row['overhead']:.1%}", f"{row['overhead_of_all']:.1%}"]
                lines.append("|" + "|".join([name.replace("_", " "), *cells]) + "|")
        if "scaling" in result:
            scaling = result["scaling"]
            lines += ["", f"Two raylets against one: {scaling['work']:.2f}× at work, {scaling['all']:.2f}× of all."]
        for name in ("here", "ray"):
            if name in result:
                steps = ", ".join(f"{step} {value:.2f}" for step, value in result[name]["steps_s"].items())
                lines += ["", f"Seconds of the steps of a clip, {name}: {steps}."]
    if "h200" in result:
        head = "frames|at once|clips|clips a second|GPU busy|graphs|wall over any model's time"
        lines += ["", f"|{head}|above the weights MiB|reserved MiB|host MiB|", "|---" * 10 + "|"]
        for row in result["h200"]:
            busy = "–" if row["gpu_busy"] is None else f"{row['gpu_busy']:.0%}"
            sizes = [row[f"{name}_MiB"] for name in ("above_weights", "reserved", "host")]
            cells = [str(row[name]) for name in ("frames", "at_once", "clips")]
            cells += [f"{row['clips_s']:.3f}", busy, str(row["graphs"]), f"{row['overhead']:.1%}"]
            cells += ["–" if size is None else f"{size:.0f}" for size in sizes]
            lines.append("|" + "|".join(cells) + "|")
    if "long" in result:
        row = result["long"]
        peaks = row["peak_MiB"]
        places = sorted({0, 1, 3, 7, 15, 31, 63, len(peaks) - 1})
        at = ", ".join(f"{peaks[place]} after clip {place + 1}" for place in places if place < len(peaks))
        lines += [
            "",
            f"A film of {row['minutes']:g} minutes, {row['frames']} frames of 1080×1920 at {row['fps']} a second, in "
            f"clips of {row['clip_frames']}: {len(peaks)} clips in {row['wall_s']:.0f} s; most memory of the process "
            f"in MiB, models and all: {row['before_MiB']} before, {at}.",
        ]
    return "\n".join(lines) + "\n"


def size_of(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "h200", "long"], default=PARTS)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--frames", type=int, default=81, help="of a clip")
    parser.add_argument("--size", type=size_of, default=(240, 426), metavar="HxW", help="of clips, with delays")
    parser.add_argument("--detect", type=float, default=0.2, help="seconds that a model sleeps for a clip")
    parser.add_argument("--frame", type=float, default=0.03, help="and for each frame that it follows")
    parser.add_argument("--minutes", type=float, default=10, help="with long: of the film")
    parser.add_argument("--fps", type=int, default=12, help="with long: of the film")
    parser.add_argument("--tiny", action="store_true", help="with h200: small sizes on the CPU")
    parser.add_argument(
        "--at-once", type=int, nargs="+", help="with h200: clips that are tracked at a time; as prepare does it, 2"
    )
    parser.add_argument("--switch", type=float, metavar="MS", help="with h200: for how long a thread keeps its turn")
    parser.add_argument(
        "--graphs", choices=("none", "track", "all"), default="all", help="with h200: what runs by CUDA graphs"
    )
    parser.add_argument("--profile", action="store_true", help="with h200: print what tracking spends its time on")
    parser.add_argument("--out", type=Path, metavar="PATH", help="write PATH.json and PATH.md")
    args = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 else: on a busy machine the others' work would be measured
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()[:1])
    result: dict[str, Any] = {"machine": f"CPU, {os.cpu_count()} cores", "load": load}
    begun = time.perf_counter()

    def keep() -> None:
        result["seconds"] = round(time.perf_counter() - begun)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            args.out.with_suffix(".md").write_text(to_table(result))

    with tempfile.TemporaryDirectory() as folder:
        if "h200" in args.only:
            networks(args, Path(folder), result, keep)
        elif "long" in args.only:
            long_film(args, Path(folder), result, keep)
        else:
            engine(args, Path(folder), result, keep)
    print(to_table(result))


if __name__ == "__main__":
    main()
