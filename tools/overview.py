"""Draws docs/overview.png, the picture of the README, from a synthetic Sample."""

from pathlib import Path

from throughmask import draw, media, palette, synthetic

SEED = 0
COLUMNS = 6


def main() -> None:
    sample = synthetic.make_sample(SEED, size=(192, 288), frames=25)
    assert sample.trajectory is not None
    assert sample.video is not None
    rows = [
        (f"Scene: a picture and what shall happen: {sample.scene.prompt}", sample.scene.image[None]),
        (
            "MaskTrajectory: where each object is in every frame; one can look at it, edit it and measure it",
            palette.OURS.paint(sample.trajectory.labels),
        ),
        ("Video: the pixels that follow these masks", sample.video.frames),
    ]
    sheet = draw.contact_sheet(rows, columns=COLUMNS, width=1400)
    target = Path(__file__).resolve().parent.parent / "docs" / "overview.png"
    media.write_image(target, sheet, force=True)
    print(f"{target.relative_to(Path.cwd())}: {sample.scene.prompt}")


if __name__ == "__main__":
    main()
