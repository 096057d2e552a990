"""What is computed again and again with the same shapes, as CUDA graphs: the host starts one in a single call, where it
would spend longer on launching kernel by kernel than a fast GPU on the arithmetic.
"""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

Function = Callable[..., list[Tensor]]  # of a model and of tensors: pure, and without waiting for the device
Play = Callable[[Sequence[Tensor]], list[Tensor]]
Record = Callable[[Callable[..., list[Tensor]], Sequence[Tensor]], Play]

SOON = 2  # how often a function runs with new shapes before it is recorded
RECORDING = 10  # runs that recording takes as long as: what was forgotten runs as often before it is recorded again
# SAM 2.1's memory grows through 16 shapes for each number of objects, and a chunk has up to 8 lengths: those of three
# numbers of objects are kept, and a fourth's begin to take the place of what was used least recently.
LIMIT = 64
ROOM = 0.5  # graphs keep their memory: none is recorded where less of the GPU's is free


class Graphs:
    """Calls functions of a model, whose weights stay where they are, and of tensors; those that come often it replays.

    record: of a function of tensors, given inputs, what plays it for others of the same shapes; None: nothing is ever
    recorded. limit: how many recorded ones are kept, the least recently used go first.
    """

    def __init__(self, model: Any, record: Record | None, limit: int = LIMIT) -> None:
        self.model, self.record, self.limit = model, record, limit
        self.plays: OrderedDict[Any, Play] = OrderedDict()
        self.seen: Counter[Any] = Counter()
        self.failed: set[Any] = set()
        self.lock = Lock()  # a graph has one place for its inputs
        for module in model.modules() if isinstance(model, torch.nn.Module) else ():
            # transformers keeps the last position encoding: made before, a graph would read it when it is long gone,
            # made while one is recorded it has no values, and made on another thread's stream it may have none yet.
            if cached := getattr(module, "build_sine_position_embedding", None):
                module.build_sine_position_embedding = getattr(cached, "__wrapped__", cached)

    @classmethod
    def on(cls, model: Any, wanted: bool = True) -> Graphs:
        """With CUDA graphs where the model is on such a device and they are wanted."""
        device = torch.device(model.device)
        return cls(model, Recorder(device) if wanted and device.type == "cuda" else None)

    @torch.inference_mode()
    def __call__(self, function: Function, *inputs: Tensor) -> list[Tensor]:
        """function(model, *inputs): tensors of its own. What it raises when it is called so is raised."""
        # What casts by itself keeps casted weights, which a graph would read when they are gone.
        if self.record is not None and not torch.is_autocast_enabled(inputs[0].device.type):
            key = (function, *((values.shape, values.dtype, values.device) for values in inputs))
            with self.lock:
                if play := self._play(key, function, inputs):
                    return play(inputs)
        return function(self.model, *inputs)

    def _play(self, key: Any, function: Function, inputs: Sequence[Tensor]) -> Play | None:
        if key in self.plays:
            self.plays.move_to_end(key)
            return self.plays[key]
        self.seen[key] += 1
        if self.record is None or self.seen[key] <= SOON or key in self.failed:
            return None
        try:
            self.plays[key] = self.record(lambda *values: function(self.model, *values), inputs)
        except RuntimeError as error:  # torch's OutOfMemoryError is one
            self.failed.add(key)
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"{function.__name__} goes on without a CUDA graph: {reason}", RuntimeWarning, stacklevel=4)
            return None
        if len(self.plays) > self.limit:
            forgotten, _ = self.plays.popitem(last=False)
            self.seen[forgotten] = -RECORDING
        return self.plays[key]


class Recorded:
    """What stands for the `forward` of a part of a model: it goes through `graphs`.

    Tensors that it is given, and gives, are inputs and results; all else is constant, and another value of it makes
    another function, with a graph of its own.
    """

    def __init__(self, forward: Callable[..., Any], graphs: Graphs) -> None:
        self.forward, self.graphs = forward, graphs
        self.functions: dict[str, _Tensors] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, form = tree_flatten((args, kwargs))
        constants = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        # setdefault: of two threads that come first at the same time, both get the same.
        function = self.functions.setdefault(f"{constants} {form}", _Tensors(self.forward, constants, form))
        return function.rebuilt(self.graphs(function, *(leaf for leaf in leaves if isinstance(leaf, Tensor))))


class _Tensors:
    """A function of whatever as one of tensors, and how its results are to be put together."""

    def __init__(self, forward: Callable[..., Any], constants: Sequence[Any], form: TreeSpec) -> None:
        self.forward, self.constants, self.form = forward, constants, form
        self.__name__ = getattr(forward, "__qualname__", "forward")
        self.made: tuple[list[Any], TreeSpec] | None = None

    def __call__(self, _: Any, *inputs: Tensor) -> list[Tensor]:
        args, kwargs = tree_unflatten(_filled(self.constants, inputs), self.form)
        leaves, form = tree_flatten(self.forward(*args, **kwargs))
        self.made = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves], form
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def rebuilt(self, results: Sequence[Tensor]) -> Any:
        assert self.made is not None  # it is called before it is recorded
        constants, form = self.made
        return tree_unflatten(_filled(constants, results), form)


_TENSOR = "a tensor"
_RECORDING = Lock()  # it begins by waiting for the whole device, on which nothing else may be recorded then


def _filled(constants: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    given = iter(tensors)
    return [next(given) if constant is _TENSOR else constant for constant in constants]


class Recorder:
    """Records functions of tensors on a CUDA device as graphs. They share their memory, as one plays at a time and its
    results are copied at once; all are to be played on the same stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> Play:
        """Raises RuntimeError if it cannot be recorded."""
        with _RECORDING:
            return self._recorded(function, inputs)

    def _recorded(self, function: Callable[..., list[Tensor]], inputs: Sequence[Tensor]) -> Play:
        here = torch.cuda.current_stream(self.device)
        if self.stream is None:  # kernels of a graph have the priority of the stream that they are recorded on
            self.stream = torch.cuda.Stream(self.device, priority=here.priority)
        if not all(values.device == self.stream.device for values in inputs):
            raise RuntimeError("not everything is on the device")  # it would be recorded as nothing
        free, total = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        if free < ROOM * total:
            raise RuntimeError("too little memory is free")
        given = [values.clone() for values in inputs]
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            function(*given)  # what libraries set up on a stream at first cannot be recorded
        here.wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            try:
                # Other threads may do meanwhile what this one may not.
                with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                    results = function(*given)
            finally:
                torch.cuda.set_stream(here)  # where recording fails, torch stays on the other one

        def play(inputs: Sequence[Tensor]) -> list[Tensor]:
            torch._foreach_copy_(given, list(inputs))
            graph.replay()
            return [values.clone() for values in results]  # the next replay overwrites them

        return play
