"""The run in one process: cut every input, then make every clip that is not there yet."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import OutputError, ThroughMaskWarning
from .config import Config
from .cutting import Clip, Cut, check_cutting, cut
from .filters import Reject
from .inputs import Input
from .ledger import Entry, Ledger, Written, write
from .making import MOST_UNEXPECTED, Decoded, Found, Tools, decode_clip, find, make_sample, track
from .progress import Done, Progress

if TYPE_CHECKING:
    from .cluster import Pools

SHOWN = 5  # names of stale results in a message


class Totals(NamedTuple):
    """A run in numbers. made, rejected: by this run; samples, rejects: of the source, with those of earlier runs."""

    clips: int
    made: int
    rejected: int
    samples: int
    rejects: int
    reasons: Mapping[str, int]


def prepare(
    inputs: Sequence[Input],
    out: str | Path,
    config: Config,
    open_tools: Callable[[], Tools],
    *,
    per_shard: int = 0,
    redo: bool = False,
    progress: Progress | None = None,
    pools: Pools | None = None,
) -> Totals:
    """Every clip of the inputs becomes one Sample in `out`, or one line of its rejects.jsonl.

    open_tools: loads what works on clips; called only if there is something to do. per_shard: 0 for folders.
    redo: results that are stale are made anew. A run that was stopped goes on. pools: the work is done by Ray.

    Raises OutputError if there are stale results and `redo` is not set, and as `Ledger`; MissingPackageError if shots
    cannot be found.
    """
    progress = progress or Progress()
    session = ExitStack()  # Ray's, from its first use on
    ledger = Ledger(out, config.made_with(), per_shard=per_shard)
    try:
        _check_stale(ledger, {}, redo)
        marks = {item.id: item.mark() for item in inputs}
        uncut = [item for item in inputs if (item.id, marks[item.id]) not in ledger.cuts]
        tools = None
        if uncut:  # what is missing is told before hours of cutting
            check_cutting(config.cutting)
            tools = open_tools() if pools is None else None
        _cut_all(uncut, marks, config, ledger, progress, pools, session)
        plan = list(_plan(inputs, marks, ledger))
        ledger.discard(_check_stale(ledger, {clip.id: marks[clip.input.id] for clip in plan}, redo))
        ledger.pack(only_full=True)
        todo = [clip for clip in plan if clip.id not in ledger.entries]
        made, rejected = 0, 0
        if todo:
            if pools is None:
                results = _make_here(todo, marks, config, tools or open_tools(), ledger)
            else:
                from .cluster import make_there

                results = make_there(todo, marks, config, open_tools, ledger, pools, session)
            made, rejected = _recorded(results, len(todo), progress)
        ledger.pack()
        return _totals([clip.id for clip in plan], made, rejected, ledger)
    finally:
        session.close()
        ledger.close()


def _cut_all(
    inputs: Sequence[Input],
    marks: Mapping[str, str],
    config: Config,
    ledger: Ledger,
    progress: Progress,
    pools: Pools | None,
    session: ExitStack,
) -> None:
    cuts: Iterator[tuple[Input, Cut | Reject]] = ((item, cut(item, config)) for item in inputs)
    if pools is not None and inputs:
        from .cluster import cut_there

        cuts = cut_there(inputs, config, pools, session)
    with progress.phase("cutting", len(inputs)):
        for item, found in cuts:
            ledger.add_cut(item.id, marks[item.id], found)
            progress.step({})


def _plan(inputs: Sequence[Input], marks: Mapping[str, str], ledger: Ledger) -> Iterator[Clip]:
    for item in inputs:
        found: Cut | Reject = ledger.cuts[item.id, marks[item.id]]
        if isinstance(found, Reject):
            yield Clip(item, failed=found)
        else:
            yield from (Clip(item, start, end, found.every) for start, end in found.pieces)


def _make_here(
    todo: Sequence[Clip], marks: Mapping[str, str], config: Config, tools: Tools, ledger: Ledger
) -> Iterator[Done]:
    """The clips in order; while one is tracked (or as many as the tools do at once), the next is decoded and looked
    at, and the one before (or as many) is filtered and written.

    Each is written down before it is told, so at least two more clips are in memory than are tracked. Where several
    are tracked at a time, looking is what the others wait for: then one more is decoded while the next is looked at.
    """
    unexpected = 0
    tracking: deque[tuple[Clip, Callable[[], Found]]] = deque()
    noting: deque[Future[Done]] = deque()
    decoding: Future[Decoded] | None = None

    def look(number: int) -> Found:
        nonlocal decoding
        decoded = decode_clip(todo[number], config, tools) if decoding is None else decoding.result()
        ahead = tools.at_once > 1 and number + 1 < len(todo)
        decoding = decoder.submit(decode_clip, todo[number + 1], config, tools) if ahead else None
        return find(todo[number], decoded, config, tools)

    def write_clip(clip: Clip, found: Found) -> Written:
        made = make_sample(clip, found, config)
        return write(ledger.place(clip.id), made, clip.id, ledger.key, marks[clip.input.id])

    def note(clip: Clip, writing: Future[Written]) -> Done:
        """In the order of the clips, whichever is written first."""
        nonlocal unexpected
        written = writing.result()
        error = written.error
        unexpected = unexpected + 1 if error is not None else 0
        if error is not None and unexpected == MOST_UNEXPECTED:
            error.add_note(f"in the clip {clip.id}, the {unexpected}th in a row with an unexpected error")
            raise error
        ledger.note(clip.id, marks[clip.input.id], written)
        return Done(written.reject is not None, written.seconds)

    with (
        ThreadPoolExecutor(1) as decoder,
        ThreadPoolExecutor(1) as finder,
        ThreadPoolExecutor(tools.at_once) as trackers,
        ThreadPoolExecutor(tools.at_once) as writers,
        ThreadPoolExecutor(1) as noter,
    ):
        coming = finder.submit(look, 0)
        for number, clip in enumerate(todo):
            found = coming.result()
            if number + 1 < len(todo):
                coming = finder.submit(look, number + 1)
            if tools.at_once > 1:
                tracking.append((clip, trackers.submit(track, found, tools).result))
            else:  # here, where Ctrl-C ends it: on a CPU it takes minutes
                tracking.append((clip, partial(track, found, tools)))
            del found  # a clip is large
            while len(tracking) == tools.at_once or (tracking and number + 1 == len(todo)):
                first, tracked = tracking.popleft()
                found = tracked()
                del tracked
                if len(noting) == tools.at_once:
                    yield noting.popleft().result()
                noting.append(noter.submit(note, first, writers.submit(write_clip, first, found)))
                del found
        for noted in noting:
            yield noted.result()
    tools.reader.close()


def _recorded(results: Iterator[Done], total: int, progress: Progress) -> tuple[int, int]:
    """How many Samples and rejects came."""
    rejected = 0
    with progress.phase("clips", total), warnings.catch_warnings():
        # Of a million clips nobody reads the notices; what is found and missed is in the facts.
        warnings.simplefilter("ignore", ThroughMaskWarning)
        for done in results:
            rejected += done.rejected
            progress.step(done.seconds, rejected=done.rejected)
    return total - rejected, rejected


def _check_stale(ledger: Ledger, marks: Mapping[str, str], redo: bool) -> list[Entry]:
    """The stale results; marks: of clips. Raises OutputError, which says what has changed, unless `redo` is set."""
    stale = ledger.stale(marks)
    if not stale or redo:
        return stale
    names = ", ".join(entry.clip for entry in stale[:SHOWN]) + (", ..." if len(stale) > SHOWN else "")
    samples = sum(entry.reject is None for entry in stale)
    count = f"{samples} Samples and {len(stale) - samples} rejects in {ledger.folder} are stale"
    problem = f"{count} ({names}): {ledger.explain(stale)}"
    raise OutputError(problem, fix="give --redo to make them anew, or another --out")


def _totals(plan: Sequence[str], made: int, rejected: int, ledger: Ledger) -> Totals:
    reasons: dict[str, Any] = {}
    samples = 0
    for clip in plan:
        reject = ledger.entries[clip].reject
        if reject is None:
            samples += 1
        else:
            reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
    ordered = dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))
    return Totals(len(plan), made, rejected, samples, len(plan) - samples, ordered)
