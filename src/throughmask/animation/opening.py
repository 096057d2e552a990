"""What finds objects, by the name that it goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import SampleError
from ..hub import Say
from ..perception.parse import Perception
from ..stages.bundle import bundled
from ..stages.devices import choose_device, choose_dtype

PARTS = ("tokenizer", "text_encoder", "segmenter")


def open_perception(
    kind: str | Path, *, device: str = "auto", surely: bool = True, say: Say = lambda _: None, **options: Any
) -> Perception:
    """kind: "toybox" (the bundled model's segmenter), "real" (photographs: Grounding DINO and SAM 2), or a folder that
    `throughmask train toybox-words` made. options: with "real", those of `RealPerception.load`. surely: something will
    be looked for, so that what that takes is loaded now. say: hears what is downloaded, and what is not found.

    Raises SampleError for a folder or a hub that does not have it, InvalidValueError for options that cannot be,
    DeviceError for a device that is not there or too small.
    """
    from ..stages.pipeline import hide_loading_bars

    place = choose_device(device)
    hide_loading_bars()
    if kind == "real":
        from ..perception.real.perception import RealPerception

        seer = RealPerception.load(device=place, dtype=choose_dtype("auto", place), say=say, **options)
        if surely:
            seer.make_ready()
        return seer
    folder = bundled() if kind == "toybox" else Path(kind)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        fix = "give a folder made by throughmask train toybox-words, or real for photographs"
        raise SampleError(f"{folder} is no segmenter: it lacks {', '.join(missing)}", fix=fix)
    from ..perception.toybox import ToyboxPerception

    toys = ToyboxPerception.load(folder)
    toys.text.encoder.to(place)
    toys.segmenter.to(place)
    return toys
