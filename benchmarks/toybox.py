"""Frames per second of Toybox, by number of processes: whole scenes, physics alone, rendering alone."""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from throughmask.toybox import draw, make_sample, make_story


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scenes", type=int, default=8, help="for each process")
    parser.add_argument("--size", type=int, default=256, help="height and width")
    options = parser.parse_args()
    print("processes  frames/s, physics and rendering  physics alone  rendering alone (each of one process)")
    for processes in options.processes:
        # A process that was forked after OpenGL started would share its context.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            jobs = [(range(k * options.scenes, (k + 1) * options.scenes), options.size) for k in range(processes)]
            list(pool.map(warm_up, jobs))
            begun = time.perf_counter()
            parts = list(pool.map(work, jobs))
            seconds = time.perf_counter() - begun
        total = processes * options.scenes * 25
        physics, rendering = (sum(part[k] for part in parts) / processes for k in (0, 1))
        mine = options.scenes * 25
        print(f"{processes:9}  {total / seconds:31.0f}  {mine / physics:13.0f}  {mine / rendering:15.0f}")


def warm_up(job: tuple[range, int]) -> None:
    make_sample(job[0][0], size=(job[1], job[1]))


def work(job: tuple[range, int]) -> tuple[float, float]:
    seeds, size = job
    physics = rendering = 0.0
    for seed in seeds:
        begun = time.perf_counter()
        story = make_story(seed, size=(size, size))
        told = time.perf_counter()
        draw(story)
        physics, rendering = physics + told - begun, rendering + time.perf_counter() - told
    return physics, rendering


if __name__ == "__main__":
    main()
