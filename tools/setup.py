"""Makes `.venv` for `make demo` (core) and `make test` (dev), and does nothing in a moment when it is already right.

Standard library only, and readable by old Pythons, so that these can be told which one is needed.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST, NEWEST = (3, 11), (3, 13)
PIP_INSTALL = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
TARGETS = {"core": ".", "dev": ".[dev,toybox,prepare,ray]"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS, help="core: what the package needs; dev: what its tests need too")
    parser.add_argument("--torch-index", default="", help="another index in which pip may find torch")
    options = parser.parse_args()
    check_python()
    wanted = fingerprint()
    # dev contains core, so either stamp will do for core.
    if any(stamp_of(name) == wanted for name in {options.target, "dev"}):
        return
    begun = time.monotonic()
    for name in TARGETS:
        stamp_path(name).unlink(missing_ok=True)  # nothing counts as done until all of it is
    make_venv()
    install_torch(options.torch_index)
    say(f"installing the package ({options.target})")
    pip("hatchling", "editables")  # what builds the package, pinned too
    pip("--no-build-isolation", "-e", TARGETS[options.target])
    temporary = VENV / "stamp.tmp"
    temporary.write_text(wanted)
    temporary.replace(stamp_path(options.target))
    say(f"ready after {time.monotonic() - begun:.0f} s; next time this takes a moment")


def check_python():
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        seen = ".".join(map(str, sys.version_info[:3]))
        stop(f"python3 is {seen}; Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed: make PYTHON=python3.{NEWEST[1]} ...")


def fingerprint():
    """Changes whenever the installed packages could have to change; the place counts, because scripts in it hold it."""
    parts = [sys.version, sys.base_prefix, str(ROOT), str(has_gpu())]
    parts += [path.read_text() for path in (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stamp_path(name):
    return VENV / f"stamp-{name}"


def stamp_of(name):
    try:
        return stamp_path(name).read_text() if PYTHON.exists() else ""
    except OSError:
        return ""


def make_venv():
    """Keeps an environment of the same Python in the same place; replaces any other one."""
    probe = "import pip, sys; print(sys.version, sys.base_prefix, sys.prefix, sep='\\n')"
    seen = subprocess.run([PYTHON, "-c", probe], capture_output=True, text=True) if PYTHON.exists() else None
    if seen is not None and seen.stdout.strip() == f"{sys.version}\n{sys.base_prefix}\n{VENV}":
        return
    try:
        import ensurepip  # noqa: F401 (Debian keeps both in a package of their own)
        import venv  # noqa: F401
    except ImportError:
        version = f"3.{sys.version_info[1]}"
        stop(f"this python3 cannot make virtual environments: apt-get install python{version}-venv (or python3-venv)")
    say(f"making .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(VENV)])


def install_torch(index):
    """A CPU build where there is no GPU and pip can find one, not gigabytes of CUDA."""
    pinned = re.search(r"^torch==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE).group(1)
    probe = "from importlib.metadata import version; print(version('torch'))"
    if run([PYTHON, "-c", probe], may_fail=True).stdout.strip().split("+")[0] == pinned:
        return
    where = ("--extra-index-url", index) if index else ()
    if sys.platform == "linux" and not has_gpu():
        say(f"no NVIDIA GPU: installing the CPU build of torch {pinned}")
        # Alone: its requirements come with the package's, and beside the constraints pip would not say what is missing.
        done = run([*PIP_INSTALL, "--no-deps", *where, f"torch=={pinned}+cpu"], may_fail=True)
        if done.returncode == 0:
            return
        if "No matching distribution" not in done.stderr:
            stop(f"pip failed\n{done.stderr}")
        say(
            "pip finds no CPU build of torch, so it takes the default one, which may be CUDA's: several gigabytes.\n"
            "        To avoid that: TORCH_INDEX=<the CPU index given at pytorch.org/get-started> make ..."
        )
    say(f"installing torch {pinned}")
    pip(*where, "torch")


def has_gpu():
    if sys.platform == "darwin":
        return False
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def pip(*arguments):
    run([*PIP_INSTALL, "-c", CONSTRAINTS, *arguments])


def run(command, may_fail=False):
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode and not may_fail:
        stop(f"this failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def say(text):
    print(f"set-up: {text}", flush=True)


def stop(text):
    print(f"set-up: {text}", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
