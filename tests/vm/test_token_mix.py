"""Everything at once, at random: programs read and write with tokens while buffers move, tokens are revoked, the server dies, the controller is reset, and they
themselves are stopped and killed. Each byte that a request says it has moved is right, each error is one that the disturbance explains, nothing stays."""

import contextlib
import json
import mmap
import os
import random
import signal
import time
import traceback
from errno import ECANCELED, ECONNABORTED, ENOENT, ENOTCONN, ESTALE, errorcode
from pathlib import Path

import pytest

import guest
from dmabuf import TestBuffer
from fuse_server import fork
from places import server_of
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, KIB, MIB, expect, let_go, make_file, opened, random_bytes, wait_for
from uring import DEFER_TASKRUN, IOSQE_ASYNC, READ_FIXED, SINGLE_ISSUER, SQPOLL, WRITE_FIXED, Ring

SEED = int(os.environ.get("MIX_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 32)
SIZE, DEPTH, WORKERS = 16 * KIB, 8, 3
READ_PART = MIB   # of the file: what all read; behind it each has a place to write to
CONTENT = random_bytes(READ_PART, seed=51)
# Revoked; the server is dead; and the mount, while it is being put back.
EXPLAINED = {ESTALE, ENOTCONN, ECONNABORTED, ENOENT}


class Worker:
    """A process with a buffer of its own, that the test moves."""

    def __init__(self, number, path):
        self.number, self.path, self.pid = number, path, 0
        self.buffer = TestBuffer(2 * DEPTH * SIZE)
        self.log = os.memfd_create("worker")

    def start(self, seed):
        # It may be asked to end before it has begun.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.pid = fork()
        if not self.pid:
            status = 1
            try:
                self._work(random.Random(seed))
                status = 0
            except BaseException:
                os.write(self.log, traceback.format_exc().encode())
            os._exit(status)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end(self, number=signal.SIGTERM):
        os.kill(self.pid, number)
        self._check(os.waitpid(self.pid, 0)[1], 0 if number == signal.SIGTERM else -number)

    def _check(self, status, wanted=None):
        self.pid = 0
        said = os.pread(self.log, 1 << 20, 0).decode().strip()
        assert os.waitstatus_to_exitcode(status) == wanted, f"worker {self.number}: {said}"

    def rounds(self):
        """How many passed; each has left a byte."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._check(status)
        return os.fstat(self.log).st_size

    def close(self):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.buffer.close()
        os.close(self.log)

    def _work(self, chance):
        self.asked_to_end = False
        self.explained = EXPLAINED | ({ECANCELED} if guest.io_uring_is_offered() else set())   # what a killed server's last requests say
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked_to_end", True))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        memory = mmap.mmap(self.buffer.fd, self.buffer.size)   # a child does not have its parent's
        while not self.asked_to_end:
            try:
                with opened(self.path, DIRECT) as fd, Ring(64, chance.choice([0, SINGLE_ISSUER | DEFER_TASKRUN, SQPOLL])) as ring:
                    ring.register_dmabuf(0, self.buffer, fd)
                    while not self.asked_to_end and chance.random() < 0.9:
                        self._round(chance, ring, fd, memory)
                        os.write(self.log, b"\n")
            except OSError as error:
                if error.errno not in self.explained:
                    raise
                time.sleep(0.01)

    def _round(self, chance, ring, fd, memory):
        """Reads of what all read, and writes of what nobody else writes, which are read back."""
        data = chance.randbytes(DEPTH * SIZE)
        memory[: DEPTH * SIZE] = data
        memory[DEPTH * SIZE :] = bytes(DEPTH * SIZE)
        own, flags, requests = READ_PART + self.number * DEPTH * SIZE, chance.choice([0, IOSQE_ASYNC]), {}
        for i in range(DEPTH):
            start = chance.randrange(READ_PART // SIZE) * SIZE
            requests[ring.prepare(READ_FIXED, fd, (DEPTH + i) * SIZE, SIZE, start, flags=flags)] = i, start
            requests[ring.prepare(WRITE_FIXED, fd, i * SIZE, SIZE, own + i * SIZE, flags=flags)] = i, None
        ring.submit()
        failure, written = None, []
        for number, result in ring.wait_all(len(requests)).items():
            i, start = requests[number]
            if result < 0:
                failure = OSError(-result, f"{os.strerror(-result)} (request)")
                assert -result in self.explained, errorcode[-result]
                continue
            assert result == SIZE
            if start is None:
                written.append(i)
            else:
                expect(memory[(DEPTH + i) * SIZE : (DEPTH + i + 1) * SIZE], CONTENT[start : start + SIZE], f"read of {start}")
        if failure:
            raise failure
        memory[DEPTH * SIZE :] = bytes(DEPTH * SIZE)
        for i in written:
            assert ring.read_fixed(fd, (DEPTH + i) * SIZE, SIZE, own + i * SIZE) == SIZE
            expect(memory[(DEPTH + i) * SIZE : (DEPTH + i + 1) * SIZE], data[i * SIZE : (i + 1) * SIZE], f"what was written, piece {i}")


class Disturbances:
    """What happens meanwhile. Each ends before the next begins, but its effect may not."""

    def __init__(self, chance, nvme, source, target, workers):
        self.chance, self.nvme, self.source, self.target, self.workers = chance, nvme, source, target, workers
        self.done = dict.fromkeys(["move", "slow_move", "fence", "reset", "revoke", "server", "freeze", "stop", "kill", "grow"], 0)

    def next(self):
        # moves are what happens all the time, the others from time to time
        name = self.chance.choice([*self.done, "move", "move", "slow_move", "fence"])
        getattr(self, name)()
        self.done[name] += 1

    def _worker(self):
        return self.chance.choice(self.workers)

    def move(self):
        for _ in range(5):
            self._worker().buffer.move()

    def slow_move(self):
        self._worker().buffer.move(hold_ms=self.chance.randrange(1, 30))

    def fence(self):
        self._worker().buffer.move(fence_ms=self.chance.randrange(1, 50))

    def reset(self):
        (self.nvme.controller / "reset_controller").write_text("1")

    def revoke(self):
        guest.run("fuse-dmabuf", "revoke", self.target, "--all")

    def server(self):
        """Dies, and is started again."""
        os.kill(server_of(self.target), signal.SIGKILL)
        guest.unmount(self.target, lazy=True)
        guest.mount_server(self.source, self.target)

    def freeze(self):
        root = next(parent for parent in self.source.parents if os.path.ismount(parent))
        guest.run("fsfreeze", "--freeze", root)
        try:
            time.sleep(self.chance.random() / 10)
            self._worker().buffer.move()
        finally:
            guest.run("fsfreeze", "--unfreeze", root)

    def stop(self):
        worker = self._worker()
        os.kill(worker.pid, signal.SIGSTOP)
        worker.buffer.move()
        os.kill(worker.pid, signal.SIGCONT)

    def kill(self):
        worker = self._worker()
        worker.end(signal.SIGKILL)
        worker.start(self.chance.random())

    def grow(self):
        """The file, beyond what anybody reads."""
        os.truncate(self.source / "data", 4 * MIB + self.chance.randrange(16) * SIZE)


@pytest.fixture
def served(ext4, tmp_path):
    source, target = ext4 / "source", tmp_path / "mount"
    source.mkdir()
    make_file(source / "data", CONTENT + bytes(3 * MIB))
    guest.mount_server(source, target)
    yield source, target
    guest.unmount_all(target)


@pytest.mark.timeout(36000)
def test_everything_at_once(nvme, served, request):
    source, target = served
    print(f"MIX_SEED={SEED}")   # now: it may end anywhere
    chance = random.Random(SEED)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(contextlib.closing(Worker(number, target / "data"))) for number in range(WORKERS)]
        for worker in workers:
            worker.start(chance.random())
        disturbances = Disturbances(chance, nvme, source, target, workers)
        for _ in range(request.config.getoption("--mix")):
            before = sum(worker.rounds() for worker in workers)
            disturbances.next()
            # whatever it was, work goes on
            wait_for(lambda: sum(worker.rounds() for worker in workers) > before, timeout=60)
        for worker in workers:
            worker.end()
        print(disturbances.done)
        let_go()
        for worker in workers:
            stats = worker.buffer.stats
            assert stats.dirty == 0, f"{stats.dirty} bytes were written to memory that the exporter had left"
            assert (stats.maps, stats.attaches) == (stats.unmaps, stats.detaches)
    assert json.loads(guest.run("fuse-dmabuf", "status", target, "--json"))["mounts"][0]["tokens"] == []
