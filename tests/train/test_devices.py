"""Processes that join, work and leave."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from throughmask.train.devices import Processes, spread


@pytest.mark.slow
def test_a_model_freed_after_its_group_was_left_does_not_hang(start):
    start([__file__], processes=2).finish(seconds=150)  # without the mend, before the 30th time


def work_and_leave() -> None:
    store, rank, world = next(dist.rendezvous("env://"))
    for time in range(100):
        dist.init_process_group("gloo", store=dist.PrefixStore(str(time), store), rank=rank, world_size=world)
        model = nn.Linear(4, 4)
        processes = Processes(rank, world, torch.device("cpu"), began=True)
        trained = spread(model, model, [], processes, how="ddp", dtype=torch.float32)
        trained(torch.ones(2, 4)).sum().backward()
        processes.leave()
        del trained, model


if __name__ == "__main__":
    work_and_leave()
