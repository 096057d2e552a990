"""Ray does the same as one process, and a killed run goes on in either."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faulty_clips import FAULTS, ColourPerception, differences, given_tools, rejects, write_source

from throughmask.errors import MissingPackageError
from throughmask.perception.language import EnglishRules
from throughmask.prepare.cluster import Pools, _written
from throughmask.prepare.config import Config, Cutting
from throughmask.prepare.engine import prepare
from throughmask.prepare.filters import Filters, Reject
from throughmask.prepare.ledger import Ledger, Written
from throughmask.prepare.making import MOST_UNEXPECTED, Tools
from throughmask.prepare.sources import open_source

GIVEN = Config("given", Cutting(frames=18, shots=False), Filters(min_motion=0.0))
POOLS = Pools(decoders=1, seers=1, writers=1)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    write_source(tmp_path / "source", 1, 0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"--ray needs a package that is not installed.*\[ray\]"):
        prepare(open_source(tmp_path / "source"), tmp_path / "out", GIVEN, given_tools, pools=POOLS)


def test_only_unexpected_errors_in_a_row_end_a_run(tmp_path):
    ledger = Ledger(tmp_path, GIVEN.made_with())
    failed = Written(Reject("track", "unexpected error", "KeyError: 3"), {}, {}, None)

    def told(*written):
        names = [f"clip{k}" for k in range(len(written))]
        rows = ({"done": pickle.dumps(row)} for row in zip(names, written, strict=True))
        return [done.rejected for done in _written(rows, dict.fromkeys(names, ""), ledger)]

    for other in (Written(None, {}, {}, None), Written(Reject("filter", "too little motion"), {}, {}, None)):
        several = [*[failed] * (MOST_UNEXPECTED - 1), other] * 2
        assert told(*several) == [written.reject is not None for written in several]
    with pytest.raises(RuntimeError, match=r"5 clips in a row failed, the last one, clip4, with KeyError: 3"):
        told(*[failed] * MOST_UNEXPECTED)
    ledger.close()


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a cluster that was not asked for is not joined
    pytest.importorskip("ray", reason="ray[data] is not installed")
    write_source(tmp_path / "source", 2 * len(FAULTS), len(FAULTS))
    inputs = open_source(tmp_path / "source")
    for config, tools in (
        (GIVEN, given_tools),
        (replace(GIVEN, masks="find"), partial(Tools, EnglishRules(), ColourPerception())),
    ):
        here = prepare(inputs, tmp_path / f"here-{config.masks}", config, tools)
        there = prepare(inputs, tmp_path / f"there-{config.masks}", config, tools, pools=POOLS)
        assert there == here
        assert not differences(tmp_path / f"there-{config.masks}", tmp_path / f"here-{config.masks}", ordered=False)
    again = prepare(inputs, tmp_path / "there-given", GIVEN, None, pools=POOLS)  # nothing is started
    assert (again.made, again.rejected) == (0, 0)


COMMAND = "from throughmask.cli import main; import sys; sys.exit(main(sys.argv[1:]))"


def workers_of(pid: int) -> list[int]:
    """Actors of the run that is led by `pid`: processes below it that Ray named after our classes."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    parents = {int(row[0]): int(row[1]) for row in rows}

    def below(process: int) -> bool:
        while process in parents and process != pid:
            process = parents[process]
        return process == pid

    return [int(row[0]) for row in rows if "ray::" in row[2] and "Map" in row[2] and below(int(row[0]))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("clips", [60, pytest.param(500, marks=pytest.mark.large)])
def test_actors_and_runs_that_are_killed_lose_nothing(tmp_path, clips):
    pytest.importorskip("ray", reason="ray[data] is not installed")
    expected = write_source(tmp_path / "source", clips, max(len(FAULTS), clips // 20))
    shared = ["prepare", str(tmp_path / "source"), "--masks", "given", "--no-shots", "--frames", "18"]
    shared += ["--min-motion", "0", "--json"]
    calm = subprocess.run([sys.executable, "-c", COMMAND, *shared, "--out", str(tmp_path / "calm")], check=True)
    assert calm.returncode == 0
    arguments = [*shared, "--ray", "local", "--out", str(tmp_path / "killed")]
    rng, killed = random.Random(0), 0
    samples = tmp_path / "killed" / "samples"
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(samples.glob("*/scene.json"))) < 5:
        time.sleep(0.02)
    assert process.poll() is None
    process.kill()
    process.wait()
    done = len(list(samples.glob("*/scene.json")))
    assert 5 <= done < clips - len(expected)
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None and killed < 3:
        if samples.is_dir() and (workers := workers_of(process.pid)):
            with suppress(ProcessLookupError):  # it may have ended by itself meanwhile
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed += 1
            time.sleep(rng.uniform(0.2, 1.0))
        time.sleep(0.02)
    assert process.wait(timeout=700) == 0
    assert killed >= (3 if clips == 500 else 1)
    assert not differences(tmp_path / "killed", tmp_path / "calm", ordered=False)
    lines = rejects(tmp_path / "killed")
    found = {line["clip"].removesuffix("-00000-00018"): (line["step"], line["reason"]) for line in lines}
    assert len(lines) == len(found)
    assert found == expected
    assert len(list(Path(samples).iterdir())) == clips - len(expected)
