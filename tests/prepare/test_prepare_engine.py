"""The engine: nothing lost and nothing twice, whatever is broken and whenever it is killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest
from faulty_clips import (
    FAULTS,
    ColourPerception,
    differences,
    given_tools,
    outcome,
    rejects,
    write_clip,
    write_source,
)

from throughmask.errors import OutputError
from throughmask.files import new_file
from throughmask.perception.instruct.connection import ServerError
from throughmask.perception.language import EnglishRules
from throughmask.prepare import engine, ledger
from throughmask.prepare.config import Config, Cutting
from throughmask.prepare.engine import prepare
from throughmask.prepare.filters import Filters
from throughmask.prepare.making import Tools
from throughmask.prepare.sources import open_source
from throughmask.shards import read_shard
from throughmask.storage import check_sample, load_sample, new_sample_folder
from throughmask.train.samples import open_samples

GIVEN = Config("given", Cutting(frames=18, shots=False), Filters(min_motion=0.0))
FIND = replace(GIVEN, masks="find")


def finding_tools():
    return Tools(EnglishRules(), ColourPerception())


def no_tools():
    raise AssertionError("a model is loaded though there is nothing to do")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare") / "source"
    return folder, write_source(folder, clips=2 * len(FAULTS), faulty=len(FAULTS))


def test_every_clip_is_a_sample_or_a_reject_with_its_reason(source, tmp_path):
    folder, expected = source
    totals = prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools)
    assert totals.clips == 2 * len(FAULTS)
    assert (totals.samples, totals.rejects) == (len(FAULTS), len(FAULTS))
    found = {
        line["clip"].removesuffix("-00000-00018"): (line["step"], line["reason"]) for line in rejects(tmp_path / "out")
    }
    assert found == expected
    samples = sorted((tmp_path / "out" / "samples").iterdir())
    assert [problem for sample in samples for problem in check_sample(sample)] == []


def test_a_rerun_does_nothing(source, tmp_path):
    folder, _ = source
    prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools)
    before = outcome(tmp_path / "out")
    totals = prepare(open_source(folder), tmp_path / "out", GIVEN, no_tools)
    assert (totals.made, totals.rejected) == (0, 0)
    assert outcome(tmp_path / "out") == before


def test_a_deleted_result_is_made_again(source, tmp_path):
    import shutil

    folder, _ = source
    prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools)
    before = outcome(tmp_path / "out")
    shutil.rmtree(next((tmp_path / "out" / "samples").iterdir()))
    assert prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools).made == 1
    assert outcome(tmp_path / "out") == before


def test_a_changed_configuration_says_what_is_stale(tmp_path):
    for seed in range(3):
        write_clip(tmp_path / "source", f"clip{seed}", seed)
    inputs, out = open_source(tmp_path / "source"), tmp_path / "out"
    prepare(inputs, out, GIVEN, given_tools)
    before = outcome(out)
    changed = replace(GIVEN, filters=replace(GIVEN.filters, max_objects=3))
    with pytest.raises(OutputError, match=r"3 Samples and 0 rejects.*clip0-00000-00018.*max_objects was 8 and is 3"):
        prepare(inputs, out, changed, no_tools)
    assert {name: content for name, content in outcome(out).items() if name != "prepare.json"} == {
        name: content for name, content in before.items() if name != "prepare.json"
    }
    assert prepare(inputs, out, changed, given_tools, redo=True).made == 3
    assert prepare(inputs, out, changed, no_tools).made == 0


def test_changed_content_is_stale_too(tmp_path):
    for seed in range(2):
        write_clip(tmp_path / "source", f"clip{seed}", seed)
    prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools)
    (tmp_path / "source" / "clip1.txt").write_text("the ring jumps")
    with pytest.raises(OutputError, match=r"1 Samples.*\(clip1-00000-00018\): files or captions of the source changed"):
        prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools)
    redone = prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools, redo=True)
    assert redone.made == 1
    assert load_sample(tmp_path / "out" / "samples" / "clip1-00000-00018").scene.prompt == "the ring jumps"


def test_two_runs_never_share_a_folder(tmp_path):
    held = ledger.Ledger(tmp_path / "out", GIVEN.made_with())
    write_clip(tmp_path / "source", "clip", 0)
    with pytest.raises(OutputError, match="another prepare is at work"):
        prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools)
    held.close()
    assert prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools).made == 1


def test_a_strange_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    write_clip(tmp_path / "source", "clip", 0)
    with pytest.raises(OutputError, match="is not from prepare"):
        prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools)


@pytest.mark.slow
def test_shards_hold_the_same_samples_and_train_reads_them(tmp_path):
    for seed in range(7):
        write_clip(tmp_path / "source", f"clip{seed}", seed)
    inputs = open_source(tmp_path / "source")
    prepare(inputs, tmp_path / "folders", GIVEN, given_tools)
    prepare(inputs, tmp_path / "shards", GIVEN, given_tools, per_shard=3)
    tars = sorted((tmp_path / "shards" / "shards").glob("*.tar"))
    assert [len(list(read_shard(tar))) for tar in tars] == [3, 3, 1]
    packed = dict(pair for tar in tars for pair in read_shard(tar))
    folders = {place.name: load_sample(place) for place in (tmp_path / "folders" / "samples").iterdir()}
    assert packed == folders
    assert not list((tmp_path / "shards" / "staged").iterdir())
    samples = open_samples(str(tmp_path / "shards" / "shards"), frames=9)
    assert len(samples) == 7
    assert len(samples.item(0).video) == 9
    assert prepare(inputs, tmp_path / "shards", GIVEN, no_tools, per_shard=3).samples == 7
    with pytest.raises(OutputError, match="holds Samples as shards"):
        prepare(inputs, tmp_path / "shards", GIVEN, no_tools)
    (tmp_path / "source" / "clip4.txt").write_text("the ring jumps")
    again = prepare(open_source(tmp_path / "source"), tmp_path / "shards", GIVEN, given_tools, per_shard=3, redo=True)
    assert again.made == 3  # its whole shard
    keys = [key for tar in (tmp_path / "shards" / "shards").glob("*.tar") for key, _ in read_shard(tar)]
    assert sorted(keys) == sorted(folders)


def test_objects_are_found_and_followed(tmp_path):
    truth = write_clip(tmp_path / "source", "clip", 3, size=(128, 128))
    prepare(open_source(tmp_path / "source"), tmp_path / "out", FIND, finding_tools)
    sample = load_sample(tmp_path / "out" / "samples" / "clip-00000-00018")
    assert [thing.name for thing in sample.scene.objects] == [thing.name for thing in truth.scene.objects]
    both = (sample.trajectory.labels > 0) & (truth.trajectory.labels > 0)
    either = (sample.trajectory.labels > 0) | (truth.trajectory.labels > 0)
    assert both.sum() / either.sum() > 0.7  # the shading of a shape is another colour


def test_an_unforeseen_error_rejects_its_clip_but_many_stop_the_run(tmp_path):
    class Broken(ColourPerception):
        left = 2

        def track(self, frames, phrases, first=None):
            self.left -= 1
            if self.left >= 0:
                raise RuntimeError("the GPU hiccuped")
            return super().track(frames, phrases, first)

    for seed in range(8):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    totals = prepare(inputs, tmp_path / "out", FIND, lambda: Tools(EnglishRules(), Broken()))
    assert totals.reasons["unexpected error"] == 2
    assert rejects(tmp_path / "out")[0]["value"] == "RuntimeError: the GPU hiccuped"

    class Dead(Broken):
        left = 100

    with pytest.raises(RuntimeError, match="hiccuped"):
        prepare(inputs, tmp_path / "out2", FIND, lambda: Tools(EnglishRules(), Dead()))


def test_errors_of_the_first_frame_count_as_those_of_the_others_do(tmp_path):
    class Dead(ColourPerception):
        def segment(self, image, phrases, hints=None):
            raise RuntimeError("the GPU hiccuped")

    for seed in range(8):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    with pytest.raises(RuntimeError, match="hiccuped") as raised:
        prepare(inputs, tmp_path / "out", FIND, lambda: Tools(EnglishRules(), Dead()))
    assert raised.value.__notes__ == ["in the clip clip4-00000-00018, the 5th in a row with an unexpected error"]
    assert [(line["clip"][:5], line["step"]) for line in rejects(tmp_path / "out")] == [
        (f"clip{seed}", "detect") for seed in range(4)
    ]


def test_while_a_clip_is_tracked_the_next_one_is_looked_at_and_no_other(tmp_path):
    class Watched(ColourPerception):
        """Which clip is looked at and tracked; none is done before the next one is looked at."""

        def __init__(self):
            self.log, self.looked = [], [Event() for _ in range(5)]
            self.looked[4].set()

        def segment(self, image, phrases, hints=None):
            number = sum(kind == "look" for kind, _ in self.log)
            self.log.append(("look", number))
            if number:
                self.looked[number - 1].set()
            return super().segment(image, phrases, hints)

        def track(self, frames, phrases, first=None):
            number = sum(kind == "track" for kind, _ in self.log)
            self.log.append(("track", number))
            assert self.looked[number].wait(20)
            labels = np.stack([ColourPerception.segment(self, frame, phrases) for frame in frames])
            self.log.append(("done", number))
            return labels

    for seed in range(5):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    seer = Watched()
    totals = prepare(open_source(tmp_path / "source"), tmp_path / "out", FIND, lambda: Tools(EnglishRules(), seer))
    assert totals.samples == 5
    assert sorted(seer.log) == sorted((kind, k) for kind in ("look", "track", "done") for k in range(5))
    for k in range(4):
        assert seer.log.index(("look", k + 1)) < seer.log.index(("done", k))
    for k in range(3):
        assert seer.log.index(("look", k + 2)) > seer.log.index(("done", k))


@pytest.mark.slow
def test_two_clips_are_tracked_at_a_time_where_the_tools_say_so(tmp_path):
    meeting, most = Barrier(2), [0, 0]

    class Together(ColourPerception):
        def track(self, frames, phrases, first=None):
            most[0] += 1
            most[1] = max(most)
            meeting.wait(20)
            most[0] -= 1
            return super().track(frames, phrases, first)

    for seed in range(6):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    prepare(inputs, tmp_path / "out", FIND, lambda: Tools(EnglishRules(), Together(), at_once=2))
    assert most == [0, 2]
    prepare(inputs, tmp_path / "calm", FIND, finding_tools)
    assert not differences(tmp_path / "out", tmp_path / "calm")
    assert list((tmp_path / "out" / "samples").iterdir())


def test_while_a_clip_is_looked_at_the_next_one_is_decoded_where_two_are_tracked(tmp_path, monkeypatch):
    begun, original = [Event() for _ in range(5)], engine.decode_clip

    def decoded(clip, *args):
        begun[int(clip.id[4])].set()
        return original(clip, *args)

    class Waiting(ColourPerception):
        looks = 0

        def segment(self, image, phrases, hints=None):
            self.looks += 1
            assert begun[min(self.looks, 4)].wait(20)  # the next one
            return super().segment(image, phrases, hints)

        def track(self, frames, phrases, first=None):
            return np.stack([ColourPerception.segment(self, frame, phrases) for frame in frames])

    monkeypatch.setattr(engine, "decode_clip", decoded)
    for seed in range(5):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    tools = Tools(EnglishRules(), Waiting(), at_once=2)
    assert prepare(inputs, tmp_path / "out", FIND, lambda: tools).samples == 5
    prepare(inputs, tmp_path / "calm", FIND, finding_tools)
    assert not differences(tmp_path / "out", tmp_path / "calm")


@pytest.mark.slow
def test_two_that_are_tracked_do_not_wait_for_two_that_are_written(tmp_path, monkeypatch):
    fourth, second, original, written, noted = Event(), Event(), ledger.write_sample, [], []

    class Counting(ColourPerception):
        tracks = 0

        def track(self, frames, phrases, first=None):
            self.tracks += 1
            if self.tracks == 4:
                fourth.set()
            return super().track(frames, phrases, first)

    def slowly(place, *args):
        if place.name.startswith("clip0"):
            assert fourth.wait(20), "the fourth waits for the first to be written"
            assert second.wait(20), "the second waits for the first"
        original(place, *args)
        written.append(place.name[:5])
        if place.name.startswith("clip1"):
            second.set()

    note = ledger.Ledger.note
    monkeypatch.setattr(ledger.Ledger, "note", lambda *args: noted.append(args[1][:5]) or note(*args))
    monkeypatch.setattr(ledger, "write_sample", slowly)
    for seed in range(6):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    prepare(inputs, tmp_path / "out", FIND, lambda: Tools(EnglishRules(), Counting(), at_once=2))
    assert written[0] == "clip1"
    assert sorted(written) == noted == [f"clip{seed}" for seed in range(6)], "written down in order"
    prepare(inputs, tmp_path / "calm", FIND, finding_tools)
    assert not differences(tmp_path / "out", tmp_path / "calm")


@pytest.mark.slow
def test_what_ends_a_run_of_two_at_a_time_loses_nothing(tmp_path):
    class Down(ColourPerception):
        calls = 0

        def track(self, frames, phrases, first=None):
            self.calls += 1
            if self.calls == 3:
                raise ServerError("the server does not answer")
            return super().track(frames, phrases, first)

    for seed in range(6):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    with pytest.raises(ServerError):
        prepare(inputs, tmp_path / "out", FIND, lambda: Tools(EnglishRules(), Down(), at_once=2))
    kept = len(list((tmp_path / "out" / "samples").iterdir()))
    assert kept
    assert prepare(inputs, tmp_path / "out", FIND, finding_tools).made == 6 - kept
    prepare(inputs, tmp_path / "calm", FIND, finding_tools)
    assert not differences(tmp_path / "out", tmp_path / "calm")


@pytest.mark.slow
def test_a_server_that_goes_down_loses_nothing(tmp_path):
    class Failing(EnglishRules):
        left = 3

        def read(self, prompt):
            self.left -= 1
            if self.left < 0:
                raise ServerError("the server does not answer")
            return super().read(prompt)

    for seed in range(6):
        write_clip(tmp_path / "source", f"clip{seed}", seed, size=(64, 64))
    inputs = open_source(tmp_path / "source")
    with pytest.raises(ServerError):
        prepare(inputs, tmp_path / "out", FIND, lambda: Tools(Failing(), ColourPerception()))
    assert len(list((tmp_path / "out" / "samples").iterdir())) == 3
    assert rejects(tmp_path / "out") == []
    assert prepare(inputs, tmp_path / "out", FIND, finding_tools).made == 3
    prepare(inputs, tmp_path / "calm", FIND, finding_tools)
    assert not differences(tmp_path / "out", tmp_path / "calm")


COMMAND = "from throughmask.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


def written(out: Path) -> int:
    """Files, and lines of what is appended to: whatever a run has done grows it."""
    files = sum(len(files) for _, _, files in os.walk(out))  # which does not mind what vanishes meanwhile
    return files + sum(path.read_bytes().count(b"\n") for path in out.glob("*.jsonl"))


def killed_until_done(arguments: list[str], kills: int, rng: random.Random) -> int:
    """Run the command and kill it `kills` times at random moments of its work, then let it end; kills that hit."""
    hits = 0
    out = Path(arguments[arguments.index("--out") + 1])
    for attempt in range(kills + 1):
        process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL)
        if attempt < kills:
            deadline, enough = time.monotonic() + 60, written(out) + rng.randint(1, 20)
            while process.poll() is None and written(out) < enough and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.05))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                hits += 1
        assert process.wait(timeout=300) in (0, -signal.SIGKILL)
    return hits


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "per_shard"), [(60, 0), (60, 7), pytest.param(500, 0, marks=pytest.mark.large)])
def test_killed_at_random_the_outcome_is_that_of_an_undisturbed_run(tmp_path, clips, per_shard):
    faulty = max(len(FAULTS), clips // 20)
    expected = write_source(tmp_path / "source", clips, faulty)
    shared = [str(tmp_path / "source"), "--masks", "given", "--no-shots", "--frames", "18", "--min-motion", "0"]
    shared += ["--per-shard", str(per_shard), "--json"]
    assert killed_until_done(["prepare", *shared, "--out", str(tmp_path / "calm")], 0, random.Random(0)) == 0
    hits = killed_until_done(["prepare", *shared, "--out", str(tmp_path / "killed")], 4, random.Random(clips))
    assert hits >= 3
    assert not differences(tmp_path / "killed", tmp_path / "calm")
    lines = rejects(tmp_path / "killed")
    found = {line["clip"].removesuffix("-00000-00018"): (line["step"], line["reason"]) for line in lines}
    assert len(lines) == len(found) == faulty
    assert found == expected
    if per_shard:
        names = [key for tar in (tmp_path / "killed" / "shards").glob("*.tar") for key, _ in read_shard(tar)]
    else:
        names = [place.name for place in (tmp_path / "killed" / "samples").iterdir()]
    assert len(names) == len(set(names)) == clips - faulty


@pytest.mark.slow
def test_what_a_killed_run_still_writes_does_not_appear_half_deleted(source, tmp_path):
    """An actor of a run whose leader was killed lives for a moment, while the next run tidies up."""
    folder, _ = source
    prepare(open_source(folder), tmp_path / "calm", GIVEN, given_tools)
    sample = next((tmp_path / "calm" / "samples").iterdir())
    *early, late = sorted(path for path in sample.rglob("*") if path.is_file())

    def write():
        with new_sample_folder(tmp_path / "out" / "samples" / sample.name) as temporary:
            for path in early:
                with new_file(temporary / path.relative_to(sample)) as file:
                    shutil.copy(path, file)
            prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools)
            with new_file(temporary / late.relative_to(sample)) as file:
                shutil.copy(late, file)

    with pytest.raises(OutputError, match="removed by another process"):
        write()
    assert not differences(tmp_path / "out", tmp_path / "calm")


def test_half_a_line_is_made_whole(source, tmp_path):
    folder, _ = source
    prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools)
    before = outcome(tmp_path / "out")
    for name in ("rejects.jsonl", "clips.jsonl"):
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:-20])
    prepare(open_source(folder), tmp_path / "out", GIVEN, given_tools)
    assert outcome(tmp_path / "out") == before


def test_what_is_left_of_packing_is_not_packed_twice(tmp_path, monkeypatch):
    for seed in range(4):
        write_clip(tmp_path / "source", f"clip{seed}", seed)
    inputs = open_source(tmp_path / "source")

    def killed(place):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(inputs, tmp_path / "out", GIVEN, given_tools, per_shard=2)
    assert len(list((tmp_path / "out" / "staged").iterdir())) == 2
    prepare(inputs, tmp_path / "out", GIVEN, given_tools, per_shard=2)
    tars = sorted((tmp_path / "out" / "shards").glob("*.tar"))
    assert [key[:5] for tar in tars for key, _ in read_shard(tar)] == ["clip0", "clip1", "clip2", "clip3"]
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["configurations"]
