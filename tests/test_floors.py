"""Imports point down: no module reaches a floor above its own, a sibling, or a package that its floor may not use."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "throughmask"

# A module imports from floors below its own. Floors of MAY_USE_EARLIER may also use what stands before in their row;
# elsewhere a row holds packages, and packages of one floor never import each other.
FLOORS = [
    ("errors", "types"),
    (
        "palette",
        "shapes",
        "connected",
        "flow",
        "edit",
        "files",
        "hub",
        "media",
        "draw",
        "storage",
        "shards",
        "interop",
        "synthetic",
    ),
    ("nn",),
    ("backbones", "perception", "toybox"),
    ("stages",),
    ("prepare", "train", "evaluate", "animation"),
    ("cli", "web"),
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MAY_USE_EARLIER = (0, 1)
FRONT_HANDS_ON = {"animation"}  # imported by the front when it is asked for, never before
TORCH = {"torch", "safetensors"}
MODELS = TORCH | {"numpy", "PIL", "diffusers", "transformers", "tokenizers", "peft"}
THIRD_PARTY: dict[str, set[str]] = {
    **{name: {"numpy"} for name in FLOORS[0]},
    **{name: {"numpy", "PIL", "av"} for name in FLOORS[1]},
    "hub": {"huggingface_hub"},
    "nn": {"torch", "cudnn"},  # cuDNN's own package, for one kernel
    "backbones": MODELS - {"PIL"},
    "perception": TORCH | {"numpy", "PIL", "diffusers", "transformers"},
    "toybox": {"numpy", "PIL", "mujoco"},
    "stages": MODELS,
    "prepare": {"numpy", "PIL", "av", "scenedetect", "pyarrow", "ray"},
    "train": MODELS | {"tensorboard", "wandb", "cv2"},  # the last one: flow of films, for one recipe
    "evaluate": {"numpy", "PIL", "scipy", "torch"},
    "animation": TORCH | {"numpy", "PIL", "tqdm"},
    "cli": {"numpy", "typer", "click", "av", "torch"},  # the last two: doctor asks them what they can do
    "web": {"numpy", "PIL", "fastapi", "starlette", "uvicorn"},
}


def problems(source: Path) -> list[str]:
    """Every import of the package in `source` (its folder) that the floors forbid, and every module without a floor."""
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        own = parts[0]
        if own == "__main__":
            own = "cli"  # `python -m throughmask` is the command line
        if own != "__init__" and own not in FLOOR_OF:
            found.append(f"{path.relative_to(source)}: {own!r} has no floor")
            continue
        for line, name in _imports(path, parts, source.name):
            problem = _problem(own, name, source.name)
            if problem:
                found.append(f"{path.relative_to(source)}:{line}: {problem}")
    return found


def _problem(own: str, name: str, package: str) -> str:
    """What is wrong with `own` importing the dotted `name`, or nothing."""
    top, *rest = name.split(".")
    if top == package:
        return _problem_inside(own, rest[0] if rest else "__init__")
    if top in sys.stdlib_module_names or top in THIRD_PARTY.get(own, {"numpy"}):
        return ""
    return f"{own} may not use {top}"


def _problem_inside(own: str, other: str) -> str:
    if other == own:
        return ""
    if other != "__init__" and other not in FLOOR_OF:
        return f"{own} imports {other}, which has no floor"
    if own == "__init__" and other in FRONT_HANDS_ON:
        return ""
    # The front stands between floor 0, which it imports, and floor 1.
    floor, target = (0.5 if name == "__init__" else FLOOR_OF[name] for name in (own, other))
    if target > floor:
        return f"{own} (floor {floor:g}) reaches up to {other} (floor {target:g})"
    names = FLOORS[int(floor)]
    if target == floor and not (floor in MAY_USE_EARLIER and names.index(other) < names.index(own)):
        return f"{own} reaches sideways to {other} (floor {floor:g})"
    return ""


def _imports(path: Path, parts: tuple[str, ...], package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import of a file, inside functions and for type checkers too."""
    folder = [package, *parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node.module or "", node.level, folder)
            # `from . import media` names a module; `from . import __version__` names something in the front.
            whole = module == package
            inside = [alias.name for alias in node.names if whole and _is_module(path, parts, alias.name)]
            yield from ((node.lineno, f"{package}.{name}") for name in inside)
            if len(inside) < len(node.names):
                yield node.lineno, module
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                bare = first.value.lstrip(".")
                yield node.lineno, _absolute(bare, len(first.value) - len(bare), folder)


def _is_module(path: Path, parts: tuple[str, ...], name: str) -> bool:
    source = path.parents[len(parts) - 1]
    return name in FLOOR_OF or (source / f"{name}.py").exists() or (source / name).is_dir()


def _absolute(module: str, level: int, folder: list[str]) -> str:
    base = folder[: len(folder) - level + 1] if level else []
    return ".".join([*base, *([module] if module else [])])


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_imports_point_down() -> None:
    assert problems(SOURCE) == []


def test_every_name_has_packages_and_one_floor() -> None:
    names = [name for floor in FLOORS for name in floor]
    assert sorted(names) == sorted(set(names)) == sorted(THIRD_PARTY)


def test_the_coverage_bound_is_on_all_of_floors_0_and_1() -> None:
    makefile = (SOURCE.parents[1] / "Makefile").read_text(encoding="utf-8")
    packages = [name for name in FLOORS[0] + FLOORS[1] + FLOORS[2] if (SOURCE / name).is_dir()]
    bound = [f"src/throughmask/{folder}*.py" for folder in ("", *(f"{name}/" for name in packages))]
    assert f"LOWER := {','.join(bound)}\n" in makefile


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("types.py", "from .palette import OURS", "types (floor 0) reaches up to palette (floor 1)"),
        ("errors.py", "from . import types", "errors reaches sideways to types (floor 0)"),
        ("edit.py", "from .media import read_video", "edit reaches sideways to media (floor 1)"),
        ("edit.py", "def f():\n    from . import storage", "edit reaches sideways to storage (floor 1)"),
        ("edit.py", "if TYPE_CHECKING:\n    from throughmask import cli", "edit (floor 1) reaches up to cli (floor 6)"),
        ("interop/davis.py", "from ..synthetic import make_sample", "interop reaches sideways to synthetic (floor 1)"),
        ("interop/davis.py", "import throughmask.nn.regions", "interop (floor 1) reaches up to nn (floor 2)"),
        (
            "backbones/wan.py",
            "from ..perception.track import track",
            "backbones reaches sideways to perception (floor 3)",
        ),
        ("train/deep/a.py", "from ... import evaluate", "train reaches sideways to evaluate (floor 5)"),
        ("web/app.py", "from throughmask.cli import main", "web reaches sideways to cli (floor 6)"),
        ("__init__.py", "from .media import read_video", "__init__ (floor 0.5) reaches up to media (floor 1)"),
        ("types.py", "from . import __version__", "types (floor 0) reaches up to __init__ (floor 0.5)"),
        (
            "edit.py",
            "from importlib import import_module\nimport_module('.nn', 'p')",
            "edit (floor 1) reaches up to nn",
        ),
        ("edit.py", "import importlib\nimportlib.import_module('torch')", "edit may not use torch"),
        ("edit.py", "import torch.nn as nn", "edit may not use torch"),
        ("errors.py", "from PIL import Image", "errors may not use PIL"),
        ("nn/regions.py", "import numpy as np", "nn may not use numpy"),
        ("evaluate/segmentation.py", "def f():\n    import pycocotools.mask", "evaluate may not use pycocotools"),
        ("utils.py", "", "'utils' has no floor"),
        ("helpers/deep.py", "", "'helpers' has no floor"),
        ("cli/a.py", "from ..utils import x", "cli imports utils, which has no floor"),
    ],
)
def test_a_bad_import_is_found(tmp_path: Path, path: str, text: str, expected: str) -> None:
    found = problems(_tree(tmp_path, path, text))
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("types.py", "import dataclasses\nimport numpy as np\nfrom .errors import InvalidValueError"),
        ("storage.py", "import av, numpy, PIL.Image\nfrom . import media, palette\nfrom .types import Sample"),
        ("interop/rle.py", "from . import davis\nfrom .davis import read\nfrom .. import media, __version__"),
        ("cli/show.py", "import typer\nfrom .. import draw\ndef f():\n    from ..stages.animator import Animator"),
        ("__main__.py", "from .cli import main"),
        ("__init__.py", "from .types import Video\nfrom .errors import ThroughMaskError"),
    ],
)
def test_a_good_import_is_left_alone(tmp_path: Path, path: str, text: str) -> None:
    assert problems(_tree(tmp_path, path, text)) == []


def _tree(folder: Path, path: str, text: str) -> Path:
    source = folder / "throughmask"
    (source / path).parent.mkdir(parents=True, exist_ok=True)
    (source / path).write_text(text, encoding="utf-8")
    return source


def test_the_front_loads_no_heavy_package() -> None:
    code = "import sys, throughmask; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "throughmask" in loaded
    assert not {"torch", "diffusers", "transformers", "typer"} & set(loaded)
