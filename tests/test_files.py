"""Outputs appear whole or not at all; nothing is overwritten unasked; names stay in their folder."""

import errno
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughmask.errors import FormatError, OutputError
from throughmask.files import inside, new_file, new_files, new_folder, remove


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def small_disk():
    """The system refuses to let any file grow beyond 4 KiB, as a full disk would."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new folder" / "größe ü.txt"
    with new_file(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("done")
        assert not path.exists()
    assert path.read_text() == "done"
    assert everything(path.parent) == [path.name]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with new_file(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("reason", [ValueError, KeyboardInterrupt, OutputError])
def test_a_failed_file_leaves_nothing_behind(tmp_path, reason):
    def write():
        with new_file(tmp_path / "a" / "b" / "file.txt") as temporary:
            temporary.write_text("half")
            raise reason("stop")

    with pytest.raises(reason):
        write()
    assert everything(tmp_path) == []


def test_a_file_is_replaced_only_by_force_and_only_by_a_whole_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"exists already.*--force"), new_file(path):
        pass
    with suppress(RuntimeError), new_file(path, force=True) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with new_file(path, force=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert everything(tmp_path) == ["file"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OutputError, match="exists already"), new_file(path):
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert everything(tmp_path) == ["file"]


def test_a_file_replaces_a_link_and_leaves_its_target(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("safe")
    link.symlink_to(target)
    with pytest.raises(OutputError, match="exists already"), new_file(link):
        pass
    with new_file(link, force=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "safe"
    assert link.read_text() == "new"


@pytest.mark.parametrize("force", [False, True])
def test_folders_and_devices_are_no_files(tmp_path, force):
    with pytest.raises(OutputError, match="where a folder stands"), new_file(tmp_path, force=force):
        pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is a device"), new_file(tmp_path / "pipe", force=force):
        pass


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_impossible_places(tmp_path, make):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file stands where a folder is needed"), make(tmp_path / "file" / "x"):
        pass
    with pytest.raises(OutputError, match="the name is too long"), make(tmp_path / ("x" * 300)):
        pass
    assert everything(tmp_path) == ["file"]


def test_a_long_name_that_the_system_takes_is_taken(tmp_path):
    with new_file(tmp_path / ("x" * 200 + "." + "y" * 54)) as temporary:
        temporary.write_text("fits")
    assert len(everything(tmp_path)[0]) == 255


@pytest.mark.parametrize("make", [new_file, new_files, new_folder])
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "no space left.*free some space"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_what_the_system_refuses_is_said_plainly(tmp_path, monkeypatch, make, number, says):
    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    # The tests may run as root, whom the system refuses nothing.
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=says), make(tmp_path / "out"):
        pass


def test_no_space_while_writing(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def write():
        with new_file(tmp_path / "a" / "out"), open("/dev/full", "w") as full:
            full.write("x")

    with pytest.raises(OutputError, match="no space left on the device"):
        write()
    assert everything(tmp_path) == []


@pytest.mark.usefixtures("small_disk")
def test_a_real_refusal_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="too large"), new_file(tmp_path / "out") as temporary:
        temporary.write_bytes(bytes(10_000))
    with pytest.raises(OutputError, match="too large"), new_folder(tmp_path / "out") as temporary:
        (temporary / "part").write_bytes(bytes(10_000))
    assert everything(tmp_path) == []


def test_errors_about_other_files_keep_their_traceback(tmp_path):
    def read(number, name):
        with new_file(tmp_path / "out"):
            raise OSError(number, os.strerror(number), name)

    with pytest.raises(PermissionError):
        read(errno.EACCES, "/elsewhere/input.mp4")
    with pytest.raises(PermissionError):
        read(errno.EACCES, str(tmp_path / "input.mp4"))
    with pytest.raises(FileNotFoundError):
        read(errno.ENOENT, None)
    with pytest.raises(OutputError):
        read(errno.EACCES, str(tmp_path))
    assert everything(tmp_path) == []


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a b" / "ünï"
    with new_folder(path) as temporary:
        (temporary / "part").write_text("1")
        assert not path.exists()
    assert everything(tmp_path) == ["a b", "a b/ünï", "a b/ünï/part"]


def test_a_failed_folder_leaves_nothing_behind(tmp_path):
    def write():
        with new_folder(tmp_path / "a" / "b") as temporary:
            (temporary / "part").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert everything(tmp_path) == []


def test_an_empty_folder_is_filled_and_a_filled_one_kept(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    with new_folder(path) as temporary:
        (temporary / "first").touch()
    with pytest.raises(OutputError, match=r"not empty.*--force"), new_folder(path):
        pass
    with pytest.raises(OutputError, match="where a file stands"), new_folder(path / "first", force=True):
        pass
    assert everything(tmp_path) == ["out", "out/first"]


def test_a_folder_is_replaced_by_force_and_only_by_a_whole_one(tmp_path):
    path = tmp_path / "out"
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "old").touch()
    with suppress(RuntimeError), new_folder(path, force=True) as temporary:
        (temporary / "new").touch()
        raise RuntimeError
    assert everything(path) == ["deep", "deep/old"]
    with new_folder(path, force=True) as temporary:
        (temporary / "new").touch()
    assert everything(tmp_path) == ["out", "out/new"]


@pytest.mark.parametrize("more", [[], ["b.txt"], ["deeper/b.txt"]])
def test_a_folder_that_is_tidied_away_meanwhile_does_not_appear(tmp_path, more):
    def write():
        with new_folder(tmp_path / "out") as temporary:
            (temporary / "a.txt").write_text("a")
            remove(temporary)
            assert everything(tmp_path) == []
            for name in more:  # whoever writes does not know
                with new_file(temporary / name) as file:
                    file.write_text(name)

    with pytest.raises(OutputError, match="removed by another process"):
        write()
    assert everything(tmp_path) == []


def test_the_old_folder_returns_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path, rename = tmp_path / "out", os.rename
    path.mkdir()
    (path / "old").touch()

    def refuse_the_second(source, target):
        monkeypatch.setattr(os, "rename", refuse if Path(target) != path else rename)
        return rename(source, target)

    def refuse(source, target):
        monkeypatch.setattr(os, "rename", rename)
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(os, "rename", refuse_the_second)
    with pytest.raises(OutputError, match="permission denied"), new_folder(path, force=True) as temporary:
        (temporary / "new").touch()
    assert everything(tmp_path) == ["out", "out/old"]


def test_the_working_and_home_folders_are_never_replaced(tmp_path, monkeypatch):
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home):
        (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(work / "sub")
    monkeypatch.setenv("HOME", str(home))
    for folder in (work, home, tmp_path):
        with pytest.raises(OutputError, match="working or home folder"), new_folder(folder, force=True):
            pass
    assert everything(tmp_path) == ["home", "home/sub", "work", "work/sub"]


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with new_folder(tmp_path / "link") as temporary:
        (temporary / "part").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "part").exists()


def test_several_files_take_their_places_together(tmp_path):
    (tmp_path / "b").write_text("old")
    (tmp_path / "c").write_text("kept")
    with suppress(RuntimeError), new_files(tmp_path) as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert (everything(tmp_path), (tmp_path / "b").read_text()) == (["b", "c"], "old")
    with new_files(tmp_path) as temporary:
        (temporary / "a").write_text("new")
        (temporary / "b").write_text("new")
        assert (tmp_path / "b").read_text() == "old"
    assert [(tmp_path / name).read_text() for name in everything(tmp_path)] == ["new", "new", "kept"]


def test_names_inside(tmp_path):
    assert inside(tmp_path, "masks/00000.png") == tmp_path / "masks" / "00000.png"
    assert inside(str(tmp_path), "größe 1..2.png") == tmp_path / "größe 1..2.png"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../../x",
        "a/../b",
        "/etc/passwd",
        "",
        " ",
        ".",
        "a\0b",
        "C:x",
        "..\\x",
        "\\\\server\\x",
        3,
        None,
    ],
)
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(FormatError, match="leads out of its folder"):
        inside(tmp_path, name)


def test_links_that_lead_out_are_refused_and_others_are_not(tmp_path):
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "real")
    (root / "circle").symlink_to(root / "circle")
    assert inside(root, "in/x") == root / "in" / "x"
    for name in ("out", "out/x"):
        with pytest.raises(FormatError, match="leads out"):
            inside(root, name)
    with pytest.raises(FormatError, match="leads out"):
        inside(root, "circle/x")


@settings(deadline=None)
@given(st.text("./\\:a ü~\0\n", max_size=12))
def test_no_name_escapes(name):
    root = Path("/some/root")
    try:
        path = inside(root, name)
    except FormatError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(root)
    assert Path(os.path.normpath(path)) != root
