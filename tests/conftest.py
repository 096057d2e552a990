"""Shared fixtures. Real clips lie beside the repository, never in it; tests that need them are skipped without them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"

# A machine that does something else at the same time is slow; that is no failure.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-opengl", action="store_true", help="tests that render fail, not skip, without OpenGL")


def pytest_configure(config: pytest.Config) -> None:
    # Not in pyproject.toml, which is read, and would import the package, before coverage begins to count.
    config.addinivalue_line("filterwarnings", "error::throughmask.errors.ThroughMaskWarning")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is made only when it is asked for."""
    for mark, why in (("large", "it takes minutes"), ("weights", "it downloads gigabytes")):
        if mark not in config.getoption("-m"):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(f"{why}: ask for it with -m {mark}"))


@pytest.fixture(autouse=True)
def _smallest_numbers() -> Iterator[None]:
    """Training on a CPU lets the process drop the smallest numbers, of which hypothesis then complains."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def assets() -> Path:
    if not ASSETS.is_dir():
        pytest.skip("real test data (../shared/assets) is not beside the repository")
    return ASSETS


@pytest.fixture(scope="session")
def opengl(request: pytest.FixtureRequest) -> None:
    """Something to render Toybox with."""
    from throughmask.errors import ThroughMaskError
    from throughmask.toybox.opengl import new_context

    try:
        new_context((32, 32)).free()
    except ThroughMaskError as error:
        if request.config.getoption("--require-opengl"):
            raise
        pytest.skip(f"nothing to render with: {error}")
