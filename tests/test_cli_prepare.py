"""`prepare` from the command line: a run, its report, and mistakes that end in one line and leave nothing."""

import json
import re
import sys
from pathlib import Path

import pytest
from tiny_words import save_tiny_words

from throughmask.cli import main
from throughmask.media import write_labels, write_video
from throughmask.storage import load_sample
from throughmask.synthetic import make_sample


def write(folder: Path, name: str, seed: int) -> None:
    sample = make_sample(seed, num_objects=1, size=(32, 48), frames=20)
    write_video(folder / f"{name}.mp4", sample.video)
    (folder / f"{name}.txt").write_text(sample.scene.prompt)
    for number, labels in enumerate(sample.trajectory.labels):
        write_labels(folder / name / f"{number:05d}.png", labels)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for seed, name in enumerate(("one", "two", "<three>")):
        write(folder, name, seed)
    (folder / "broken.mp4").write_text("no video")
    return folder


def call(*words, status=0):
    assert main([str(word) for word in ("prepare", *words)]) == status


def test_videos_become_samples_and_a_page(source, tmp_path, capsys):
    given = (source, "--masks", "given", "--no-shots", "--min-motion", 0, "--out", tmp_path / "out")
    call(*given, "--report", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["clips"], answer["made"], answer["rejected"]) == (4, 3, 1)
    assert answer["reasons"] == {"there are no masks for this video": 1}
    page = Path(answer["report"]).read_text()
    assert "3 Samples of 4 clips" in page
    assert "there are no masks for this video" in page
    assert page.count("<li>") == 3
    assert page.count('src="data:image/webp;base64,') == 9
    assert not re.search(r"(?:src|href)=\"(?!data:)|https?://|@import", page)
    assert len(load_sample(tmp_path / "out" / "samples" / "one-00000-00020").trajectory) == 20
    call(*given)
    told = capsys.readouterr()
    assert "3 Samples and 1 rejects of 4 clips; of these 0 and 0 by this run" in told.out
    call("--out", tmp_path / "out", "--report")
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    call(*given, "--max-objects", 2, status=2)
    assert "filters.max_objects was 8 and is 2; give --redo" in capsys.readouterr().err


def test_progress_says_the_rate_of_each_step(source, tmp_path, capsys):
    call(source, "--masks", "given", "--no-shots", "--min-motion", 0, "--out", tmp_path / "out")
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"^4/4 clips, 1 rejected, .*/s, 0:00 left \(a second: .*decode \d.*filter \d.*write \d", last)


def test_a_report_of_shards(source, tmp_path):
    more = ("--per-shard", 2, "--report")
    call(source, "--masks", "given", "--no-shots", "--min-motion", 0, "--out", tmp_path / "out", *more)
    assert sorted(path.name for path in (tmp_path / "out" / "shards").glob("*.tar")) == ["00000.tar", "00001.tar"]
    assert (tmp_path / "out" / "report.html").read_text().count("<li>") == 3


@pytest.mark.slow
def test_a_segmenter_finds_and_follows(source, tmp_path, capsys):
    words = save_tiny_words(tmp_path / "words")
    call(source, "--no-shots", "--perception", words, "--out", tmp_path / "out", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["clips"] == 4
    assert answer["samples"] + answer["rejects"] == 4  # random weights may find nothing


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ((), "finding objects needs a segmenter; give --masks"),
        (("--perception", "nowhere"), "nowhere is no segmenter"),
        (("--masks", "given", "--fps", "12"), "a video with given masks is not resampled"),
        (("--fps", "fast"), "a frame rate must be exact"),
        (("--frames", "0"), "a clip has 1 to 10000 frames"),
        (("--min-area", "0.95"), "a lower limit is above the upper one"),
        (("--sees",), "only a server's model sees frames"),
        (("--language", "openai"), "--language openai needs --url and --llm"),
        (("--from", "movies"), "known: folder, manifest"),
        (("--ray", "local", "--actors", "2,0,1"), "actors are three numbers"),
        (("--per-shard", "-1"), "a shard holds at least 1 Sample"),
    ],
)
def test_mistakes_end_in_one_line(source, tmp_path, capsys, monkeypatch, more, problem):
    monkeypatch.chdir(tmp_path)
    call(source, "--out", "out", "--no-shots", *more, status=2)
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert not Path("out", "samples").exists()


def test_a_missing_extra_is_named_before_any_work(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    call(source, "--masks", "given", "--out", tmp_path / "out", status=2)
    assert "pip install 'through-the-mask[prepare]'" in capsys.readouterr().err


def test_a_report_needs_a_preparation(tmp_path, capsys):
    call("--out", tmp_path, "--report", status=2)
    assert "is not from prepare" in capsys.readouterr().err
    call("--out", tmp_path, status=2)
    assert "there is nothing to do" in capsys.readouterr().err
