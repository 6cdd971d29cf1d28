"""What fails when a test wants it: allocations of memory, by the kernel's fault injection (Documentation/fault-injection); and any function of the kernel."""

import contextlib
import os
import threading
from errno import ENOMEM
from pathlib import Path

DEBUGFS = Path("/sys/kernel/debug")
SLAB, PAGES = DEBUGFS / "failslab", DEBUGFS / "fail_page_alloc"


@contextlib.contextmanager
def injection(probability=0, kinds=(SLAB, PAGES)):
    """Makes the allocations that ordinary kernel code makes ones that may fail: by Failing, or with a probability in percent within marked()."""
    settings = {"verbose": 0, "ignore-gfp-wait": "N", "task-filter": "Y", "times": -1, "interval": 1, "probability": probability}
    before = {}
    try:
        for kind in kinds:
            for name, value in [*settings.items(), *([("min-order", 0)] if (kind / "min-order").exists() else [])]:
                before[kind / name] = (kind / name).read_text()
                (kind / name).write_text(str(value))
        yield
    finally:
        for path, value in before.items():
            path.write_text(value.replace("\0", ""))


@contextlib.contextmanager
def marked():
    """This task's allocations fail with that probability, and those of the workers of rings that it starts meanwhile."""
    fd = os.open("/proc/thread-self/make-it-fail", os.O_WRONLY)
    os.write(fd, b"1")
    try:
        yield
    finally:
        os.pwrite(fd, b"0", 0)
        os.close(fd)


class Failing:
    """with Failing(n) as failing: the n-th allocation of the body fails; failing.has_failed says whether there were so many.

    It is the n-th of each of the threads(), which are looked for when the body begins.
    """

    def __init__(self, number, threads):
        self.number, self.threads, self.has_failed = number, threads, False

    def __enter__(self):
        self._fds = [os.open(f"/proc/self/task/{thread}/fail-nth", os.O_RDWR) for thread in self.threads()]
        for fd in self._fds:
            os.pwrite(fd, str(self.number).encode(), 0)
        return self

    def __exit__(self, *exc):
        for fd in self._fds:
            try:
                # What is left of the number; 0 when it was used up.
                self.has_failed |= int(os.pread(fd, 16, 0)) == 0
                os.pwrite(fd, b"0", 0)
            except ProcessLookupError:   # a worker that had nothing to do has ended: nobody knows, so go on with the next number
                self.has_failed = True
            os.close(fd)


def this_thread():
    return [threading.get_native_id()]


def workers():
    """Threads of this process that do what requests of its rings cannot do at once."""
    return [path.parent.name for path in Path("/proc/self/task").glob("*/comm") if path.read_text().startswith("iou-wrk-")]


def failures(threads=this_thread):
    """A Failing for the first allocation, then for the second, until there are no more: each is to be used once."""
    for number in range(1, 1000):
        failing = Failing(number, threads)
        yield failing
        if not failing.has_failed:
            return
    raise AssertionError("it never ends")


def each_failure(attempt, undo=lambda result: None, allowed=(ENOMEM,)):
    """attempt() again and again, with one of its failures() each time.

    It fails with an error that is allowed, or does without; undo(result) follows then. Returns how often it failed, and how many allocations failed.
    """
    undo(attempt())   # what is made once for all is there
    errors = 0
    for failing in failures():
        try:
            with failing:
                result = attempt()
        except OSError as error:
            assert failing.has_failed, f"no allocation failed, but {error}"
            assert error.errno in allowed, f"allocation {failing.number}: {error}"
            errors += 1
            continue
        undo(result)
    return errors, failing.number - 1


# Functions of the kernel

OVERRIDE = Path("/sys/module/return_override/parameters")  # tests/modules/override


class Overridden:
    def hits(self):
        """How often the function has returned so far, also those times that are held back now."""
        return int((OVERRIDE / "hits").read_text())

    def let_go(self):
        """Ends the delay of those that are held back, and of all that follow."""
        (OVERRIDE / "delay_ms").write_text("0")


@contextlib.contextmanager
def overridden(symbol, value="", count=0, delay_ms=0):
    """A function of the kernel does what it does, but returns that value or so late, the first `count` times or always. One at a time.

    Held back it keeps its processor busy, where nothing else runs then.
    """
    for name, setting in ("value", value), ("count", count), ("delay_ms", delay_ms), ("symbol", symbol):
        (OVERRIDE / name).write_text(f"{setting}\n")
    try:
        yield Overridden()
    finally:
        (OVERRIDE / "delay_ms").write_text("0")
        (OVERRIDE / "symbol").write_text("\n")
