"""A long video takes no more memory than a short one."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from throughmask.media import write_video
from throughmask.types import Video

FRAMES, SIZE = 16, (360, 640)  # of a clip
CLIP_MIB = FRAMES * SIZE[0] * SIZE[1] * 3 / 2**20

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from throughmask.perception.language import EnglishRules
from throughmask.prepare.config import Config, Cutting
from throughmask.prepare.engine import prepare
from throughmask.prepare.filters import Filters
from throughmask.prepare.making import Tools
from throughmask.prepare.sources import open_source

class Reds:
    def segment(self, image, phrases, hints=None):
        return self.track(image[None], phrases)[0]

    def track(self, frames, phrases, first=None):
        return (frames[..., 0] > 150).astype(np.uint8)

frames, source, out = int(sys.argv[1]), *sys.argv[2:]
config = Config("find", Cutting(frames=frames, shots=False), Filters(min_frames=frames))
totals = prepare(open_source(source), out, config, lambda: Tools(EnglishRules(), Reds()))
# Not getrusage: its maximum is inherited from the process that started this one.
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(totals.samples, int(peak) / 2**10)
"""


def most_memory(folder: Path, clips: int) -> float:
    """In MiB, of a process that prepares one video of so many clips."""
    frames = np.full((clips * FRAMES, *SIZE, 3), 90, np.uint8)
    for t, frame in enumerate(frames):
        left = 20 + 4 * (t % 100)
        frame[100:200, left : left + 100] = (220, 30, 30)
    write_video(folder / "source" / "film.mp4", Video(frames, Fraction(12)))
    (folder / "source" / "film.txt").write_text("the red block slides to the right")
    words = [sys.executable, "-c", PROGRAM, str(FRAMES), str(folder / "source"), str(folder / "out")]
    samples, peak = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert int(samples) == clips
    return float(peak)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak")
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    short, long = most_memory(tmp_path / "short", 5), most_memory(tmp_path / "long", 20)
    assert long - short < (20 - 5) * CLIP_MIB / 3, f"{short:.0f} MiB for 5 clips, {long:.0f} for 20"
