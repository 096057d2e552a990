"""Sources: each kind gives the Samples that it was written from, and says in one sentence what it cannot read."""

import csv
import io
import json
import shutil
import sys
import tarfile
from fractions import Fraction

import numpy as np
import pytest
from faulty_clips import write_clip

from throughmask import interop
from throughmask.cli import main
from throughmask.errors import FormatError, InvalidValueError, MissingPackageError
from throughmask.media import write_image, write_video
from throughmask.perception.language import EnglishRules
from throughmask.prepare.config import Config, Cutting
from throughmask.prepare.engine import prepare
from throughmask.prepare.filters import Filters
from throughmask.prepare.inputs import LONGEST_ID, Input, with_ids
from throughmask.prepare.making import Tools
from throughmask.prepare.sources import open_source, sniff
from throughmask.shards import KEY
from throughmask.storage import load_sample, save_sample
from throughmask.synthetic import make_sample
from throughmask.types import Video

GIVEN = Config("given", Cutting(shots=False), Filters(min_frames=5, min_motion=0.0))


def prepared(source, out, config=GIVEN):
    """Samples by clip."""
    totals = prepare(open_source(source), out, config, lambda: Tools(EnglishRules()))
    assert totals.rejects == 0, totals.reasons
    return {place.name: load_sample(place) for place in sorted((out / "samples").iterdir())}


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "source"
    return folder, [write_clip(folder, name, seed) for seed, name in enumerate(("a", "b"))]


def check(samples, truths):
    assert len(samples) == len(truths)
    for sample, truth in zip(samples.values(), truths, strict=True):
        assert np.array_equal(sample.trajectory.labels, truth.trajectory.labels)
        assert sample.scene.prompt == truth.scene.prompt


def test_a_folder_of_videos(clips, tmp_path):
    folder, truths = clips
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "a.mp4", folder / ".hidden" / "c.mp4")
    found = prepared(folder, tmp_path / "out")
    assert list(found) == ["a-00000-00018", "b-00000-00018"]
    check(found, truths)
    assert found["a-00000-00018"].origin.source == "a.mp4"


def test_samples_can_be_prepared_again(tmp_path):
    truths = [make_sample(seed, size=(32, 48), frames=20) for seed in range(2)]
    for seed, truth in enumerate(truths):
        save_sample(truth, tmp_path / "made" / f"seed-{seed}")
    found = prepared(tmp_path / "made", tmp_path / "out")
    assert list(found) == ["seed-0-00000-00020", "seed-1-00000-00020"]
    check(found, truths)
    names = [thing.name for thing in found["seed-0-00000-00020"].scene.objects]
    assert names == [thing.name for thing in truths[0].scene.objects]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_manifests(clips, tmp_path, suffix):
    _, truths = clips
    rows = [
        {"path": f"source/{name}.mp4", "text": truth.scene.prompt, "masks": f"source/{name}", "names": "1=thing"}
        for name, truth in zip("ab", truths, strict=True)
    ]
    path = tmp_path / f"list{suffix}"
    with path.open("w", newline="") as file:
        if suffix == ".jsonl":
            file.writelines(json.dumps({**row, "names": {"1": "thing"}}) + "\n" for row in rows)
        else:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    found = prepared(path, tmp_path / "out")
    check(found, truths)
    assert [thing.name for thing in found["source-a-00000-00018"].scene.objects] == ["thing"]


def test_a_parquet_manifest(clips, tmp_path, monkeypatch):
    folder, truths = clips
    path = tmp_path / "list.parquet"
    path.write_bytes(b"PAR1")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        patch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(MissingPackageError, match=r"reading Parquet needs a package .*\[ray\]"):
            open_source(path)
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet

    with pytest.raises(FormatError, match="the Parquet file cannot be read"):
        open_source(path)
    rows = {
        "video": [str(folder / f"{name}.mp4") for name in "ab"],
        "caption": [truth.scene.prompt for truth in truths],
        "masks": [str(folder / name) for name in "ab"],
        "id": ["a", "b"],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    check(prepared(path, tmp_path / "out"), truths)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("m.csv", "file_id,caption\nx,y\n", "line 1 of the manifest names no video"),
        ("m.csv", "video,names\nx.mp4,dog\n", "names are written 1=dog,2=cat"),
        ("m.csv", "video\nx.mp4\nx.mp4\n", "two lines of the manifest have the same name"),
        ("m.csv", "video\n", "the source holds no videos"),
        ("m.jsonl", '{"video": "x.mp4"}\n{"video"', "line 2 of the manifest is not JSON"),
        ("m.jsonl", "[1]\n", "line 1 of the manifest is no object"),
        ("m.tar", "not a tar", "the shard is not a tar, or is damaged"),
        ("m.doc", "", "this is no source of videos"),
    ],
)
def test_bad_sources_end_in_one_line(tmp_path, capsys, name, content, problem):
    (tmp_path / name).write_text(content)
    assert main(["prepare", str(tmp_path / name), "--out", str(tmp_path / "out"), "--masks", "given"]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_video_that_a_manifest_names_but_is_not_there_is_rejected(tmp_path):
    (tmp_path / "m.csv").write_text("video,masks\nnowhere.mp4,\n")
    find = Config(cutting=Cutting(shots=False))
    totals = prepare(open_source(tmp_path / "m.csv"), tmp_path / "out", find, lambda: Tools(EnglishRules()))
    assert totals.reasons == {"the video is not there": 1}


def test_webdataset_shards(clips, tmp_path):
    folder, truths = clips
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "00000.tar", "w") as tar:
        for number, name in enumerate("ab"):
            interop.write(truths[number], tmp_path / f"{name}.json", "rle")
            tar.add(folder / f"{name}.mp4", f"{name}.mp4")
            tar.add(tmp_path / f"{name}.json", f"{name}.masks.json")
            said = json.dumps({"caption": truths[number].scene.prompt}).encode()
            header = tarfile.TarInfo(f"{name}.json")
            header.size = len(said)
            tar.addfile(header, io.BytesIO(said))
    check(prepared(tmp_path / "shards", tmp_path / "out"), truths)
    content = (tmp_path / "shards" / "00000.tar").read_bytes()
    inputs = open_source(tmp_path / "shards")
    (tmp_path / "shards" / "00000.tar").write_bytes(content[: inputs[1].media.offset + 100])
    totals = prepare(inputs, tmp_path / "cut", GIVEN, lambda: Tools(EnglishRules()))
    assert totals.reasons == {"the shard is cut off": 1}


@pytest.mark.parametrize("resolution", ["480p", ""])
def test_davis(tmp_path, resolution):
    root = tmp_path / "DAVIS"
    truths = []
    for seed, name in enumerate(("cows", "goat")):
        truth = write_clip(tmp_path / "made", name, seed)
        pictures = root / "JPEGImages" / resolution / name
        pictures.mkdir(parents=True)
        for number, frame in enumerate(truth.video.frames):
            write_image(pictures / f"{number:05d}.jpg", frame)
        (root / "Annotations" / resolution).mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / "made" / name, root / "Annotations" / resolution / name)
        truths.append(truth)
    assert sniff(root) == "davis"
    found = prepared(root, tmp_path / "out")
    assert list(found) == ["cows-00000-00018", "goat-00000-00018"]
    for sample, truth in zip(found.values(), truths, strict=True):
        assert np.array_equal(sample.trajectory.labels, truth.trajectory.labels)
        assert sample.video.fps == 24
    # Masks of every second picture: those pictures alone, at half the rate.
    for number in range(1, 18, 2):
        (root / "Annotations" / resolution / "cows" / f"{number:05d}.png").unlink()
    half = prepared(root, tmp_path / "half")["cows-00000-00009"]
    assert half.video.fps == 12
    assert np.array_equal(half.trajectory.labels, truths[0].trajectory.labels[::2])


def test_sav(tmp_path):
    folder = tmp_path / "sav"
    truth = write_clip(tmp_path / "made", "x", 0, frames=41)
    folder.mkdir()
    shutil.move(tmp_path / "made" / "x.mp4", folder / "sav_000123.mp4")
    from throughmask.types import MaskTrajectory

    thinned = MaskTrajectory(truth.trajectory.labels[::4], truth.trajectory.fps / 4)
    interop.write(thinned, folder / "sav_000123_manual.json", "rle", every=4)
    found = prepared(folder, tmp_path / "out")["sav_000123-00000-00011"]
    assert np.array_equal(found.trajectory.labels, thinned.labels)
    assert found.video.fps == Fraction(12, 4)
    assert found.origin.source == "SA-V sav_000123"
    frames = np.abs(found.video.frames.astype(int) - truth.video.frames[::4])
    assert frames.mean() < 8  # twice through a lossy file


@pytest.mark.slow
def test_a_real_annotation_of_sav_imports_as_a_trajectory(assets, tmp_path):
    path = assets / "sav" / "sav_000001_manual.json"
    if not path.is_file():
        path = next((assets / "sav").glob("*_manual.json"))
    masks = interop.read(path).trajectory
    folder = tmp_path / "sav"
    folder.mkdir()
    shutil.copy(path, folder)
    count = int(json.loads(path.read_text())["video_frame_count"])
    # Its video is not to be had; grey frames of the same number and size stand for it.
    grey = np.broadcast_to(np.uint8(90), (count, *masks.size, 3))
    write_video(folder / f"{path.name.removesuffix('_manual.json')}.mp4", Video(grey, Fraction(24)))
    out = prepared(folder, tmp_path / "out", Config("given", Cutting(200, shots=False), Filters()))
    [sample] = out.values()
    assert np.array_equal(sample.trajectory.labels, masks.labels)
    assert sample.trajectory.fps == masks.fps == 6


def test_ids_are_keys_and_never_the_same():
    names = ["a.mp4", "a.mov", "x/b.mp4", "x-b.mp4", "日本.mp4", "long" * 40 + ".mp4", "-.mp4"]
    found = with_ids([Input(name, None) for name in names])
    ids = [item.id for item in found]
    assert len(set(ids)) == len(ids)
    assert all(KEY.fullmatch(f"{id}-00000-00081") and len(id) <= LONGEST_ID for id in ids)
    assert with_ids([Input("x/clip 1.mp4", None)])[0].id == "x-clip-1"


def test_an_unknown_kind_lists_those_that_are(tmp_path):
    with pytest.raises(InvalidValueError, match="known: folder, manifest, shards, davis, sav"):
        open_source(tmp_path, "movies")
