"""The same work spread by Ray Data: pools of actors that decode, look for objects, and write.

Actors write Samples under their clips' names; the process that asked writes down rejects, and packs shards.
"""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MissingPackageError, ThroughMaskWarning
from ..perception.language import EnglishRules
from .config import Config
from .cutting import Clip, Cut, cut
from .filters import Reject
from .inputs import Input
from .ledger import Ledger, write
from .making import MOST_UNEXPECTED, Decoded, Made, Tools, decode_clip, find, make_sample, track
from .progress import Done

Row = dict[str, Any]
MIN_CPUS = 8  # Ray counts them, it does not use them up: with fewer than one for each actor a run would wait forever


class Pools(NamedTuple):
    """How Ray spreads the work. address: of a cluster, "" to start one here. Numbers of actors: that decode, that look
    for objects (each with `gpus` of a GPU), and that write; batch: clips that travel together.
    """

    address: str = ""
    decoders: int = 2
    seers: int = 1
    writers: int = 2
    gpus: float = 0.0
    batch: int = 2


def cut_there(
    inputs: Sequence[Input], config: Config, pools: Pools, session: ExitStack
) -> Iterator[tuple[Input, Cut | Reject]]:
    """Where each input is to be cut, in no order. Raises MissingPackageError without Ray."""
    _join(pools, session)
    rows = _pooled(_rows(inputs, pools), Cutting, (config,), pools.decoders)
    for row in rows.iter_rows():
        yield pickle.loads(row["done"])


def make_there(
    todo: Sequence[Clip],
    marks: Mapping[str, str],
    config: Config,
    open_tools: Callable[[], Tools],
    ledger: Ledger,
    pools: Pools,
    session: ExitStack,
) -> Iterator[Done]:
    """Each clip of `todo` as it is done, in no order. An actor that dies is started again, and so is its work.

    Raises MissingPackageError without Ray, RuntimeError where clip after clip fails in an unforeseen way.
    """
    _join(pools, session)
    rows = _pooled(_rows(todo, pools), Decoding, (config,), pools.decoders)
    rows = _pooled(rows, Seeing, (config, open_tools), pools.seers, threads=2, num_gpus=pools.gpus)
    rows = _pooled(rows, Writing, (ledger.place("").resolve(), ledger.key, marks), pools.writers)
    yield from _written(rows.iter_rows(), {clip.id: marks[clip.input.id] for clip in todo}, ledger)
    session.close()  # with it the actors
    ledger.tidy()  # what actors that died left half written


def _join(pools: Pools, session: ExitStack) -> None:
    """Start Ray, or join a cluster, unless it runs already; until the session is closed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingPackageError("--ray", "ray") from None
    if not ray.is_initialized():
        cpus = max(MIN_CPUS, os.cpu_count() or 1, pools.decoders + pools.seers + pools.writers + 2)
        # "local": without it Ray joins whatever cluster was last seen on this machine, alive or not.
        here: dict[str, Any] = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        where = {"address": pools.address} if pools.address else here
        ray.init(log_to_driver=False, logging_level="ERROR", **where)
        session.callback(ray.shutdown)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _rows(items: Sequence[Any], pools: Pools) -> Any:
    import ray.data

    rows = [{"item": pickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=-(-len(rows) // pools.batch))


def _pooled(rows: Any, work: type, arguments: tuple[Any, ...], size: int, *, threads: int = 1, **more: Any) -> Any:
    """The rows as `size` actors give them on. threads: that call an actor at a time; more: what each of them takes."""
    import ray.data

    pool = ray.data.ActorPoolStrategy(
        size=size, max_concurrent_calls_per_actor=threads, enable_true_multi_threading=threads > 1
    )
    about = {"batch_size": 1, "compute": pool, "fn_constructor_args": arguments}
    return rows.map_batches(work, **about, **more)


def _written(rows: Iterator[Row], marks: Mapping[str, str], ledger: Ledger) -> Iterator[Done]:
    unexpected = 0
    for row in rows:
        clip, written = pickle.loads(row["done"])
        reject = written.reject
        failed = reject is not None and reject.reason == "unexpected error"
        unexpected = unexpected + 1 if failed else 0
        if unexpected == MOST_UNEXPECTED:
            raise RuntimeError(f"{unexpected} clips in a row failed, the last one, {clip}, with {reject.value}")
        ledger.note(clip, marks[clip], written)
        yield Done(reject is not None, written.seconds)


class Cutting:
    """An actor that looks where inputs are to be cut."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, batch: Row) -> Row:
        item = pickle.loads(batch["item"][0])
        return {"done": [pickle.dumps((item, cut(item, self.config)))]}


class Decoding:
    """An actor that turns clips into frames."""

    def __init__(self, config: Config) -> None:
        warnings.simplefilter("ignore", ThroughMaskWarning)
        self.config, self.tools = config, Tools(EnglishRules())

    def __call__(self, batch: Row) -> Row:
        decoded = decode_clip(pickle.loads(batch["item"][0]), self.config, self.tools)
        return {"item": batch["item"], "decoded": [_packed(decoded.made, decoded)]}


class Seeing:
    """An actor with models. They see one clip at a time; a second thread unpacks the next, filters and packs the
    one before.
    """

    def __init__(self, config: Config, open_tools: Callable[[], Tools]) -> None:
        warnings.simplefilter("ignore", ThroughMaskWarning)
        self.config, self.tools, self.models = config, open_tools(), threading.Lock()

    def __call__(self, batch: Row) -> Row:
        clip: Clip = pickle.loads(batch["item"][0])
        decoded: Decoded = pickle.loads(batch["decoded"][0])
        with self.models:
            found = track(find(clip, decoded, self.config, self.tools), self.tools)
        made = make_sample(clip, found, self.config)
        return {"item": batch["item"], "made": [_packed(made, made)]}


class Writing:
    """An actor that writes Samples; what it gives on is small. folder: in which each has its own."""

    def __init__(self, folder: Path, key: str, marks: Mapping[str, str]) -> None:
        self.folder, self.key, self.marks = folder, key, marks

    def __call__(self, batch: Row) -> Row:
        clip: Clip = pickle.loads(batch["item"][0])
        made: Made = pickle.loads(batch["made"][0])
        written = write(self.folder / clip.id, made, clip.id, self.key, self.marks[clip.input.id])
        return {"done": [pickle.dumps((clip.id, written))]}


def _packed(made: Made | None, whole: Decoded | Made) -> bytes:
    """As bytes; exceptions stay behind, not all of them can travel."""
    if made is not None and made.error is not None:
        made = made._replace(error=None)
        whole = made if isinstance(whole, Made) else whole._replace(made=made)
    return pickle.dumps(whole)
