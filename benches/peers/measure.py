"""Figures: medians, ratios of measurements that were made in turn, and the project's limits (bars)."""

import contextlib
import os
import statistics
import subprocess
import sys
import time


class Results:
    """Tables in their order, bars, and series for the plot."""

    def __init__(self):
        self.tables, self.bars, self.series = [], [], {}

    def table(self, title, about, head, rows):
        self.tables.append((title, about, head, rows))

    def bar(self, what, bar, figure, shown, is_upper=True, note=""):
        """Adds a limit. `figure` must be at most `bar` if `is_upper`, else at least `bar`."""
        reached = figure <= bar if is_upper else figure >= bar
        sign = "≤" if is_upper else "≥"
        self.bars.append((what, f"{sign} {number(bar)}", shown, reached, note))

    def point(self, plot, line, x, y):
        self.series.setdefault(plot, {}).setdefault(line, []).append((x, y))


def number(value):
    """Returns a number in the format of the tables."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if value == int(value) and value < 1e6:
        return f"{int(value):,}".replace(",", " ")
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}".replace(",", " ")


# Ends with its parent, so that no loop outlives a killed run.
LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


@contextlib.contextmanager
def awake():
    """Keeps each processor awake by a loop that runs only when no other process wants to run (SCHED_IDLE).

    Without the loops, a figure depends on how long a virtual processor needs to wake up."""
    def last():
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    loops = []
    try:
        for _ in os.sched_getaffinity(0):
            loops.append(subprocess.Popen([sys.executable, "-c", LOOP], preexec_fn=last))
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def in_turn(rounds, *actions):
    """Runs each action once in each round. Returns a list of figures for each action."""
    figures = [[] for _ in actions]
    for _ in range(rounds):
        for at, action in enumerate(actions):
            figures[at].append(action())
    return figures


def median(values):
    return statistics.median(values)


def ratio(ones, others):
    """Returns the median of the ratios of the rounds. Only figures of one round are compared."""
    return median(one / other for one, other in zip(ones, others))


def process(words, env, text=None):
    """Returns the wall time and the CPU time of a whole process in ms."""
    read, write = os.pipe()
    os.write(write, (text or "").encode())
    os.close(write)
    null = os.open(os.devnull, os.O_WRONLY)
    began = time.perf_counter()
    files = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    pid = os.posix_spawnp(words[0], words, env, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    os.close(read)
    os.close(null)
    if status:
        raise SystemExit(f"bench: {' '.join(words)}: {status}")
    return wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000
