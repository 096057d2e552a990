"""Object id <-> colour, the only place where colours exist: `paint` makes colours, `snap` makes labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InvalidValueError
from .types import Labels, Pixels, present_ids

FAR = 40  # L-infinity levels from every palette colour: an edge blend or a mistake (measured on the paper's clips)


@dataclass(frozen=True, eq=False)
class Palette:
    """`colours` is uint8, N+1 by 3: row k is the colour of object k, row 0 of the background."""

    name: str
    colours: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        colours = np.asarray(self.colours)
        if colours.dtype != np.uint8 or colours.ndim != 2 or colours.shape[1] != 3 or not 2 <= len(colours) <= 256:
            raise InvalidValueError("a palette is uint8, 2 to 256 rows of RGB", seen=f"{colours.dtype} {colours.shape}")
        if len(np.unique(colours, axis=0)) != len(colours):
            raise InvalidValueError("a palette has the same colour twice", seen=self.name)
        colours = colours.view()
        colours.flags.writeable = False
        object.__setattr__(self, "colours", colours)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Palette):
            return False
        return self.name == other.name and np.array_equal(self.colours, other.colours)

    @property
    def num_objects(self) -> int:
        return len(self.colours) - 1

    def paint(self, labels: Labels) -> Pixels:
        """Labels (... uint8) to colours (... 3 uint8). Raises InvalidValueError for an id beyond the palette."""
        beyond = [i for i in present_ids(labels) if i > self.num_objects]
        if beyond:
            fix = f"palette {self.name!r} has {self.num_objects} colours: use fewer objects, or another palette"
            raise InvalidValueError("object ids have no colour in the palette", seen=beyond, fix=fix)
        painted: Pixels = self.colours[labels]
        return painted

    def snap(self, colours: Pixels) -> tuple[Labels, float]:
        """Noisy colours (... 3, uint8) to the labels of the nearest palette colours, and the share of far pixels.

        Nearest is Euclidean in RGB; far means more than `FAR` levels from the nearest colour in some channel.
        """
        colours = np.asarray(colours)
        if colours.dtype != np.uint8 or colours.shape[-1:] != (3,):
            raise InvalidValueError(
                "colours must be uint8 with three channels", seen=f"{colours.dtype} {colours.shape}"
            )
        flat = colours.reshape(-1, 3)
        # A video has few distinct colours next to its pixels, so distances are computed once for each of them.
        codes = flat.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        counts = np.bincount(codes, minlength=1 << 24)
        seen = np.flatnonzero(counts)
        rgb = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], -1).astype(np.int32)
        table = np.zeros(1 << 24, np.uint8)
        palette, far = self.colours.astype(np.int32), 0
        for start in range(0, len(seen), 1 << 16):  # bounded memory for photographs
            part, where = rgb[start : start + (1 << 16)], seen[start : start + (1 << 16)]
            nearest = ((part[:, None] - palette) ** 2).sum(-1).argmin(1)
            table[where] = nearest
            far += int(counts[where][np.abs(part - palette[nearest]).max(-1) > FAR].sum())
        return table[codes].reshape(colours.shape[:-1]), far / max(1, len(flat))


def detect(colours: Pixels, *, max_objects: int = 21, min_share: float = 0.001, name: str = "detected") -> Palette:
    """The palette of a colour mask video (T H W 3) that came without one.

    Compression scatters each colour, so pixels are counted in cells of 16 levels, cells are taken most common first,
    and a cell within `FAR` of a colour already taken joins it. The most common colour on the frame's border, or black
    where black occurs there, is the background; objects follow by first appearance, then by area.

    Raises InvalidValueError if the frames hold one colour only, or more than `max_objects` colours besides the
    background.
    """
    frames = colours if colours.ndim == 4 else colours[None]
    total = frames.reshape(-1, 3)
    cell_of = (total >> 4).astype(np.uint16) @ np.array([256, 16, 1], np.uint16)
    counts = np.bincount(cell_of)
    found: list[npt.NDArray[np.int32]] = []
    for cell in np.argsort(-counts, kind="stable"):
        if counts[cell] < min_share * len(total):
            break
        colour = np.median(total[cell_of == cell], axis=0).astype(np.int32)
        if all(np.abs(colour - other).max() > FAR for other in found):
            found.append(colour)
    if len(found) < 2 or len(found) - 1 > max_objects:
        fix = "name the palette that made these colours"
        raise InvalidValueError(
            "the frames do not look like a colour mask video", seen=f"{len(found)} colours", fix=fix
        )
    labels, _ = Palette(name, np.array(found, np.uint8)).snap(frames)
    border = np.concatenate([labels[:, [0, -1]].ravel(), labels[:, :, [0, -1]].ravel()])
    shares = np.bincount(border, minlength=len(found))
    dark = [k for k, colour in enumerate(found) if colour.max() <= FAR and shares[k]]
    background = dark[0] if dark else int(shares.argmax())
    appears = [int((labels == k).any((1, 2)).argmax()) for k in range(len(found))]
    order = sorted((k for k in range(len(found)) if k != background), key=lambda k: (appears[k], k))
    return Palette(name, np.array([found[background], *(found[k] for k in order)], np.uint8))


def _ours() -> Palette:
    """Black and 13 colours: the corners and face centres of the RGB cube.

    That is the face-centred cubic packing: every two are at least 180 levels apart (Euclidean; the paper's are 47), the
    most that 14 colours can be. Corners come first, so the ids used most are the ones farthest apart, 255 levels.
    """
    corners = [(255, 0, 0), (0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    faces = [(255, 128, 128), (0, 128, 128), (128, 255, 128), (128, 0, 128), (128, 128, 255), (128, 128, 0)]
    return Palette("ours", np.array([(0, 0, 0), *corners, *faces], np.uint8))


def _paper() -> Palette:
    """The paper's clips (measured): the `supervision` library's default palette at half brightness on black."""
    rgb = (
        "a351fb ff4040 ffa1a0 ff7633 ffb633 d1d435 4cfb12 94cf1a 40de8a 1b9640 00d6c1 "
        "2e9caa 00c4ff 364797 6675ff 0019ef 863aff 530087 cd3aff ff97ca ff39c9"
    )
    full = np.array([tuple(bytes.fromhex(code)) for code in rgb.split()], np.uint8)
    # Object k is drawn as class k, which wraps modulo 21: entry 0 belongs to object 21.
    order = np.r_[1 : len(full), 0]
    return Palette("paper", np.concatenate([np.zeros((1, 3)), np.rint(full[order] / 2)]).astype(np.uint8))


def _davis() -> Palette:
    """DAVIS and PASCAL VOC: the bits of the id, dealt out to the high bits of red, green and blue."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * j + c)) & 1) << (7 - j) for j in range(3)) for c in range(3)]
    return Palette("davis", np.stack(channels, -1).astype(np.uint8))


OURS, PAPER, DAVIS = _ours(), _paper(), _davis()
NAMED = {palette.name: palette for palette in (OURS, PAPER, DAVIS)}


def named(name: str) -> Palette:
    """One of the palettes above by name. Raises InvalidValueError for an unknown name."""
    if name not in NAMED:
        raise InvalidValueError("there is no palette of that name", seen=name, fix=f"known: {', '.join(NAMED)}")
    return NAMED[name]
