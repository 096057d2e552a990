"""Makes the results in examples/ with the bundled model, each from a picture and a sentence of examples/sentences.tsv.

    throughmask toybox --seeds 1200008..1200010 --toys 3 --verbs roll,slide,jump,stay --out out/toys    # the pictures
    python tools/examples.py                                                                          # the results

A result is an animated picture: the masks of stage 1 on the left, the video of stage 2 on the right.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import throughmask
from throughmask import palette

FOLDER = Path(__file__).resolve().parent.parent / "examples"


def main() -> None:
    wanted = set(sys.argv[1:])
    for line in (FOLDER / "sentences.tsv").read_text(encoding="utf-8").splitlines():
        name, picture, sentence = line.split("\t")
        if wanted and name not in wanted:
            continue
        sample = throughmask.animate(FOLDER / picture, sentence).sample
        assert sample.trajectory is not None
        assert sample.video is not None
        both = np.concatenate([palette.OURS.paint(sample.trajectory.labels), sample.video.frames], axis=2)
        first, *others = (Image.fromarray(frame) for frame in both)
        milliseconds = round(1000 / sample.video.fps)
        first.save(
            FOLDER / f"{name}.webp", save_all=True, append_images=others, duration=milliseconds, loop=0, quality=80
        )
        print(f"examples/{name}.webp: {sentence}")


if __name__ == "__main__":
    main()
