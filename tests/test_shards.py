"""Samples in tar shards: what was packed comes back, a byte of a folder is a byte of the shard, damage is named."""

import contextlib
import io
import itertools
import re
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest

from throughmask import shards
from throughmask.errors import InvalidValueError, MediaError, OutputError, SampleError
from throughmask.shards import list_keys, open_sample, read_shard, write_shard, write_shards
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample
from throughmask.types import Sample

KEYS = ["a-1", "b_2", "0003"]


@pytest.fixture(scope="module")
def samples():
    return {key: make_sample(seed, size=(32, 32), frames=3) for seed, key in enumerate(KEYS)}


@pytest.fixture(scope="module")
def shard(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "00000.tar"
    write_shard(samples.items(), path)
    return path


def same(one: Sample, other: Sample) -> bool:
    """All but the pixels of the video, which H.264 changes a little."""
    return (one.scene, one.trajectory, one.origin) == (other.scene, other.trajectory, other.origin) and np.abs(
        one.video.frames.astype(int) - other.video.frames
    ).mean() < 6


def test_what_was_written_is_read_in_order(samples, shard):
    found = dict(read_shard(shard))
    assert list(found) == KEYS
    assert all(same(found[key], samples[key]) for key in KEYS)


def test_a_shard_holds_the_bytes_of_the_sample_folder(samples, tmp_path, shard):
    for key, sample in samples.items():
        save_sample(sample, tmp_path / key)
    write_shard([(key, tmp_path / key) for key in KEYS], tmp_path / "00000.tar")
    assert (tmp_path / "00000.tar").read_bytes() == shard.read_bytes(), "the same Samples, the same bytes"
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        assert names[:5] == ["a-1.scene.json", "a-1.image.png", *(f"a-1.mask.{k:05d}.png" for k in range(3))]
        assert names[5] == "a-1.video.mp4"
        for name in names:
            key, _, file = name.partition(".")
            path = tmp_path / key / file.replace("mask.", "masks/")
            assert tar.extractfile(name).read() == path.read_bytes()
    # WebDataset's rule: a key ends at the first dot, and its files stand together.
    grouped = [key for key, _ in itertools.groupby(names, key=lambda name: re.match(r"[^.]+", name)[0])]
    assert grouped == KEYS


def test_bare_scenes_travel_too(tmp_path, samples):
    scene = Sample(samples["a-1"].scene)
    write_shard([("scene", scene)], tmp_path / "a.tar")
    assert open_sample(tmp_path / "a.tar", "scene") == scene


def test_random_access(samples, shard):
    places = list_keys(shard)
    assert list(places) == KEYS
    for key in reversed(KEYS):
        assert same(open_sample(shard, key, places[key]), samples[key])
        assert same(open_sample(shard, key), samples[key])
    for key, start in (("none", 0), ("a-1", places["b_2"])):
        with pytest.raises(SampleError, match=f"00000.tar, key {key}: there is no such Sample"):
            open_sample(shard, key, start)


def test_many_shards(samples, tmp_path):
    paths = write_shards(samples.items(), tmp_path / "set", per_shard=2)
    assert [path.name for path in paths] == ["00000.tar", "00001.tar"]
    assert [list(list_keys(path)) for path in paths] == [KEYS[:2], KEYS[2:]]
    with pytest.raises(OutputError, match="not empty"):
        write_shards(samples.items(), tmp_path / "set")


def test_whole_or_not_at_all(samples, tmp_path):
    def broken():
        yield from samples.items()
        raise RuntimeError

    for write, place in ((write_shards, tmp_path / "set"), (write_shard, tmp_path / "a.tar")):
        with pytest.raises(RuntimeError):
            write(broken(), place)
        for pairs, words in (
            ([("a.b", samples["a-1"])], "no key"),
            ([("../a", samples["a-1"])], "no key"),
            ([("", samples["a-1"])], "no key"),
            ([("a", samples["a-1"])] * 2, "the same key"),
        ):
            with pytest.raises(InvalidValueError, match=words):
                write(pairs, place)
    with pytest.raises(InvalidValueError, match="the same key"):
        write_shards([("a", samples["a-1"])] * 2, tmp_path / "set", per_shard=1)
    with pytest.raises(InvalidValueError, match="no Samples"):
        write_shards([], tmp_path / "set")
    with pytest.raises(SampleError, match="no such folder"):
        write_shard([("a", tmp_path / "nothing")], tmp_path / "a.tar")
    with pytest.raises(InvalidValueError, match="at least 1"):
        write_shards(samples.items(), tmp_path / "set", per_shard=0)
    assert list(tmp_path.iterdir()) == []


def test_samples_are_read_one_at_a_time(shard, monkeypatch):
    loaded = []
    monkeypatch.setattr(shards, "load_sample", lambda folder: loaded.append(folder.name) or load_sample(folder))
    for number, (key, _) in enumerate(read_shard(shard), 1):
        assert loaded == KEYS[:number]
        assert loaded[-1] == key


def test_headers_are_not_kept_in_memory(shard, monkeypatch):
    kept, following = [], tarfile.TarFile.next
    monkeypatch.setattr(tarfile.TarFile, "next", lambda tar: kept.append(len(tar.members)) or following(tar))
    assert len(list_keys(shard)) == 3
    assert len(kept) > 18
    assert max(kept) <= 1


@pytest.mark.parametrize("end", ["in a header", "in a file", "between two files", "between two Samples"])
def test_a_cut_off_shard_is_named(shard, tmp_path, end):
    with tarfile.open(shard) as tar:
        headers = {header.name: header for header in tar.getmembers()}
    header = headers["b_2.mask.00001.png"]
    cut = {
        "in a header": header.offset + 100,
        "in a file": header.offset_data + 10,
        "between two files": header.offset,
        "between two Samples": headers["0003.scene.json"].offset,
    }[end]
    path = tmp_path / "cut.tar"
    path.write_bytes(shard.read_bytes()[:cut])
    found = []
    with pytest.raises(SampleError, match=r"cut\.tar, key b_2: .*cut off"):
        found.extend(key for key, _ in read_shard(path))
    assert "a-1" in found or end == "between two Samples"
    with pytest.raises(SampleError, match="cut off"):
        list_keys(path)
    assert open_sample(path, "a-1").trajectory is not None
    with pytest.raises(SampleError, match=r"cut\.tar"):
        open_sample(path, "0003")


def rewritten(shard: Path, path: Path, change) -> Path:
    """The shard with `change(name, data)` for each file: a list of (name or TarInfo, data)."""
    with tarfile.open(shard) as tar, tarfile.open(path, "w") as out:
        for header in tar:
            for name, data in change(header.name, tar.extractfile(header).read()):
                new = tarfile.TarInfo(name) if isinstance(name, str) else name
                new.size = len(data)
                out.addfile(new, io.BytesIO(data))
    return path


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, "a-1.image.png"
    return header


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, d: [] if n == "b_2.image.png" else [(n, d)], "key b_2: there is no such file.*b_2/image.png"),
        (lambda n, d: [] if n == "b_2.mask.00001.png" else [(n, d)], "key b_2: masks and frames differ.*00001.png"),
        (lambda n, d: [] if n == "b_2.scene.json" else [(n, d)], "key b_2: .*no scene.json"),
        (lambda n, d: [(n, d[: len(d) // 2] if n == "b_2.video.mp4" else d)], "key b_2: .*cut off"),
        (lambda n, d: [(n, d)] * (1 + (n == "b_2.image.png")), "key b_2: a file is there twice"),
        (lambda n, d: [(n.replace("b_2.image", "../b.image"), d)], r"after this key has a bad name .*\.\./b"),
        (lambda n, d: [(n.replace("b_2.image", "/else/b.image"), d)], "bad name"),
        (lambda n, d: [(n.replace("b_2.image.png", "b_2.mask./x.png"), d)], "bad name"),
        (lambda n, d: [(n.replace("b_2", "b 2"), d)], "key a-1: .*bad name .*b 2"),
        (lambda n, d: [(n.replace("b_2", "b" * 81), d)], "bad name"),
        (lambda n, d: [(n, d), *([("a-1.txt", b"x")] * (n == "b_2.image.png"))], "key a-1: .*not stand together"),
        (lambda n, d: [(link(n, tarfile.SYMTYPE) if n == "b_2.image.png" else n, b"" if "b_2.i" in n else d)], "links"),
        (lambda n, d: [(link(n, tarfile.LNKTYPE) if n == "b_2.image.png" else n, b"" if "b_2.i" in n else d)], "links"),
    ],
)
def test_what_is_refused_names_shard_and_key(shard, tmp_path, change, words):
    path = rewritten(shard, tmp_path / "bad.tar", change)
    with pytest.raises(SampleError, match=words) as caught:
        list(read_shard(path))
    assert str(caught.value).startswith("bad.tar, key ")
    assert tempfile.gettempdir() not in str(caught.value), "the folder it was unpacked to is gone"


def test_files_and_folders_of_others_are_passed_over(shard, tmp_path, samples):
    path = rewritten(
        shard,
        tmp_path / "more.tar",
        lambda n, d: [(f"./{n}", d)] + [("./a-1.truth.json", b"{}")] * (n == "a-1.image.png"),
    )
    assert same(dict(read_shard(path))["a-1"], samples["a-1"])


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, bytes(1024)])
def test_no_shard(tmp_path, content):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    if content.strip(b"\0") or not content:
        with pytest.raises(SampleError, match="not a tar"):
            list_keys(path)
    else:
        assert list_keys(path) == {}, "an empty tar"
    with pytest.raises(SampleError, match="cannot be read"):
        list(read_shard(tmp_path / "none.tar"))


def test_damage_anywhere_is_told(shard, tmp_path):
    """Whichever bit of a header is wrong, what comes out is a list of keys or an error of ours."""
    data, rng = shard.read_bytes(), np.random.default_rng(0)
    with tarfile.open(shard) as tar:
        starts = [header.offset for header in tar]
    for k in range(60):
        broken = bytearray(data)
        broken[starts[k % len(starts)] + int(rng.integers(512))] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.tar").write_bytes(broken)
        with contextlib.suppress(SampleError, MediaError):
            assert set(list_keys(tmp_path / "b.tar"))
