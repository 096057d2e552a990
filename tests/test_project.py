"""The shell around the package: what README and CHANGELOG say is true, and nothing is here that should not be."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import throughmask
from throughmask.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "docs/stages.md", "docs/train.md", "docs/prepare.md"]
MEBIBYTE = 1 << 20
MODEL = Path("src", "throughmask", "models", "toybox")
COMMAND = Path(sys.executable).with_name("throughmask")
# Split, so that this file does not contain what it looks for.
MACHINE_PATH = re.compile("/(wo" + "rk|fa" + "rm|ro" + "ot|tmp/ba" + "sh_jobs|home/[a-z]+)/")
REGISTRY_HOST = re.compile("py" + r"pi\.org|pythonho" + r"sted\.org|download\.py" + r"torch\.org")


def files() -> list[Path]:
    """Files that are or will be committed; everything beside the known outputs where this is not a git checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        ignored = {name.rstrip("/") for name in (ROOT / ".gitignore").read_text().split()} | {".git"}
        found = []
        for folder, folders, names in os.walk(ROOT):
            folders[:] = set(folders) - ignored
            found += [Path(folder, name) for name in names]
    return [path for path in found if path.is_file()]


def text_files() -> dict[Path, str]:
    texts = {}
    for path in files():
        try:
            texts[path.relative_to(ROOT)] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return texts


def fences(language: str, page: str = "README.md") -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def commands(program: str, page: str = "README.md") -> list[list[str]]:
    lines = [line for fence in fences("bash", page) for line in fence.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program]


def test_one_version_everywhere() -> None:
    changelog = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert changelog is not None
    assert citation is not None
    assert changelog[1] == citation[1] == throughmask.__version__
    shown = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True).stdout
    assert throughmask.__version__ in shown


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands("throughmask", page)
    assert len(found) >= 5
    for words in found:  # in this process, so that torch is imported once
        assert main(words[1:]) == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_program_of_a_page_runs(page: str, tmp_path: Path) -> None:
    found = fences("python", page)
    assert found
    for program in found:
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{program}\n{done.stderr}"


def test_every_readme_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {words[1] for words in commands("make")}
    assert {"demo", "test"} <= named <= targets


def test_the_file_tree_of_the_readme_is_the_real_one() -> None:
    """Each module and package of the source has its line, and each line its file."""
    [tree] = [fence for fence in fences("text") if "src/throughmask/" in fence]
    named = re.findall(r"^ {2}(\w+(?:\.py|/)) ", tree, re.M)
    source = ROOT / "src" / "throughmask"
    there = [path.name for path in source.glob("*.py")] + [
        f"{path.parent.name}/" for path in source.glob("*/__init__.py")
    ]
    assert sorted(named) == sorted(name for name in there if not name.startswith("__"))
    inner = re.findall(r"^ {4}(\w+\.py) ", tree, re.M)
    assert sorted(inner) == sorted(path.name for path in source.glob("*/*.py") if path.name != "__init__.py")


def test_links_lead_somewhere() -> None:
    broken = []
    for path, text in text_files().items():
        if path.suffix != ".md":
            continue
        links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"src=\"([^\"]+)\"", text)
        inside = [link.split("#")[0] for link in links if not re.match(r"https?:|mailto:|#", link)]
        broken += [f"{path}: {link}" for link in inside if not (ROOT / path.parent / link).exists()]
    assert broken == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert pages
    assert [page for page in pages if f"({page})" not in index] == []


def test_the_repository_stays_small() -> None:
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in files()}
    large = {path for path, size in sizes.items() if size > 2 * MEBIBYTE}
    assert {path for path in large if path.suffix != ".safetensors" or "models" not in path.parts} == set()
    assert sizes[MODEL / "vae" / "diffusion_pytorch_model.safetensors"] <= 8_000_000
    assert max(sizes.values()) <= 17_000_000  # stage 2
    assert sum(sizes.values()) < 58 * MEBIBYTE


@pytest.mark.parametrize("needle", [MACHINE_PATH, REGISTRY_HOST], ids=["path of a machine", "host of a registry"])
def test_nothing_of_one_machine_is_written_down(needle: re.Pattern[str]) -> None:
    assert [f"{path}: {hit[0]}" for path, text in text_files().items() if (hit := needle.search(text))] == []


def test_the_needles_find_what_they_should() -> None:
    assert MACHINE_PATH.search("see /" + "work/main/x") is not None
    assert MACHINE_PATH.search("see /" + "home/ann/x") is not None
    assert MACHINE_PATH.search("framework/main, ../shared/assets") is None
    assert REGISTRY_HOST.search("https://" + "pypi" + ".org/simple") is not None


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX file system")
def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_every_core_requirement_is_pinned() -> None:
    """What pyproject asks for, CI takes from the constraints."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8").lower(), re.M))
    for table in ("dependencies", "dev"):
        listed = re.search(rf"^{table} = \[(.*?)^\]", project, re.M | re.S)
        assert listed is not None
        names = re.findall(r'^\s*"([\w.-]+)', listed[1], re.M)
        assert names
        assert set(names) <= pinned
