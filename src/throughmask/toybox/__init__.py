"""Toybox: toys in a room, moved by physics, with perfect masks and words that are true of what happens.

One seed gives one Sample: `make_sample(7)`. `make_story` is the same without pictures and needs no OpenGL;
`make_sample_with_truth` adds all that is known beside it; `ToyboxSource` serves training. Splits: `split_seeds`.

    recipes.py  what a seed promises: splits, number of toys, streams of chance
    kinds.py    colours and shapes              plan.py    who stands where, set to do what; hidden parameters
    looks.py    floors, walls, light            camera.py  the room to the picture
    mjcf.py     the MuJoCo model                world.py   its physics
    sight.py    what is visible, by rays        events.py  states to claims
    words.py    claims to English               truth.py   poses, contacts, optical flow
    opengl.py   MuJoCo without a screen         render.py  pixels, labels, depth
    source.py   all of it, seed to Sample       preview.py a sheet of many scenes
"""

from .opengl import NoOpenGLError, prepare_opengl
from .plan import VERBS
from .preview import preview
from .recipes import HELD_OUT_SPLITS, split_seeds
from .source import Story, ToyboxSource, draw, make_sample, make_sample_with_truth, make_story, truth_of
from .truth import Truth, write_truth

__all__ = [
    "HELD_OUT_SPLITS",
    "VERBS",
    "NoOpenGLError",
    "Story",
    "ToyboxSource",
    "Truth",
    "draw",
    "make_sample",
    "make_sample_with_truth",
    "make_story",
    "prepare_opengl",
    "preview",
    "split_seeds",
    "truth_of",
    "write_truth",
]
