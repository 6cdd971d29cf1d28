"""The kernel asks the FUSE server for each token, tells it of each end, and lives with whatever it answers."""

import os
import shutil
import signal
import struct
import threading
import time
from errno import EBUSY, ECONNABORTED, EDQUOT, EINVAL, EIO, ENOSYS, ENOTCONN, EOPNOTSUPP, EPERM, ESTALE, ETIMEDOUT
from pathlib import Path

import pytest

import fuse_server
import guest
from dmabuf import TestBuffer, Udmabuf
from fuse_server import CLOSED, FAILED, OPEN, RELEASE, TOKEN_CREATE, TOKEN_READ, TOKEN_RELEASE, TOKEN_WRITE, FuseServer, fork
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, DIRECT, KIB, MIB, Target, attachments, data_on_ext4, expect, expect_untouched, fails, make_file, opened,
    random_bytes, read_and_compare, wait_for,
)  # fmt: skip
from uring import READ_FIXED, Ring


# What the server is told


def test_the_server_is_asked_once_for_each_token(ring, serve, moving):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    (request,) = server.requests(TOKEN_CREATE)
    (open_request,) = server.requests(OPEN)
    (token,) = server.creates()
    assert request.nodeid == open_request.nodeid
    assert (request.uid, request.gid) == (os.getuid(), os.getgid())
    assert request.pid == os.getpid()
    assert token.size == BUFFER_SIZE
    assert token.direction == TOKEN_READ | TOKEN_WRITE
    assert token.exporter.rstrip(b"\0") == b"dmabuf_test"
    assert token.padding == 0


@pytest.mark.parametrize("flags, direction", [(os.O_RDONLY, TOKEN_READ), (os.O_WRONLY, TOKEN_WRITE), (os.O_RDWR, TOKEN_READ | TOKEN_WRITE)])
def test_the_open_mode_says_which_directions(ring, serve, udmabuf, flags, direction):
    """As far as the tokens of this kernel write at all."""
    server, target = serve()
    try:
        ring.register_dmabuf(0, udmabuf, target.open(flags | os.O_DIRECT))
    except OSError:
        assert flags == os.O_WRONLY and server.creates() == []
        return
    (token,) = server.creates()
    assert token.direction and token.direction & ~direction == 0


def test_the_exporter_has_its_name(ring, serve, udmabuf, bar):
    server, target = serve()
    ring.register_dmabuf(0, udmabuf, target.fd)
    ring.register_dmabuf(1, bar, target.fd)
    names = [token.exporter.rstrip(b"\0") for token in server.creates()]
    assert names == [b"udmabuf", b"vfio_pci_core"]


def test_the_caller_is_named(serve):
    """Not root's rights, but those of who registers."""
    server, target = serve()
    target.fd
    with TestBuffer(MIB) as buffer, Ring(flags=0, inherited=True) as ring:

        def register():
            os.setgid(1234)
            os.setuid(5678)
            ring.register_dmabuf(0, buffer, target.fd)

        assert in_child(register) == 0
        (request,) = server.requests(TOKEN_CREATE)
        assert (request.uid, request.gid) == (5678, 1234)


def test_the_end_of_a_token_is_told_with_its_counters(ring, serve, moving):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    for _ in range(5):
        ring.read_fixed(target.fd, 0, 64 * KIB, 0)
    assert server.releases() == []
    ring.unregister(0)
    wait_for(server.releases, ring)
    (token,), (release,) = server.creates(), server.releases()
    assert (release.token, release.fh) == (token.token, token.fh)
    assert (release.requests, release.read_bytes, release.write_bytes) == (5, 5 * 64 * KIB, 0)
    assert release.reason == CLOSED


def test_each_token_has_a_number_of_its_own(ring, serve, udmabuf, moving):
    server, target = serve()
    second = target.open()
    ring.register_dmabuf(0, udmabuf, target.fd)
    ring.register_dmabuf(1, moving, target.fd)
    ring.register_dmabuf(2, udmabuf, second)
    ring.unregister(0)
    ring.register_dmabuf(0, udmabuf, target.fd)
    assert len({token.token for token in server.creates()}) == 4
    assert len({token.fh for token in server.creates()}) == 2


def test_the_end_of_a_token_comes_before_that_of_its_file(ring, serve, moving):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    target.close()
    time.sleep(0.3)
    assert server.requests(RELEASE) == server.requests(TOKEN_RELEASE) == [], "the token keeps its file open"
    ring.close()
    wait_for(lambda: server.requests(RELEASE))
    assert [request.opcode for request in server.requests()] == [OPEN, TOKEN_CREATE, TOKEN_RELEASE, RELEASE]


def test_every_token_of_a_killed_process_ends(serve):
    server, target = serve()
    with TestBuffer(MIB) as buffer:
        target.fd

        def register_and_die():
            ring = Ring()
            for slot in range(8):
                ring.register_dmabuf(slot, buffer, target.fd)
            numbers = [ring.prepare(READ_FIXED, target.fd, 0, 64 * KIB, i * 64 * KIB, i) for i in range(8)]
            ring.submit()
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(register_and_die) == -signal.SIGKILL
        wait_for(lambda: len(server.releases()) == 8)
        assert {r.token for r in server.releases()} == {t.token for t in server.creates()}


def test_the_server_need_not_answer_the_end(serve, moving, ring):
    """Closing does not wait for the server: here it is stopped."""
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        ring.unregister(0)
        wait_for(lambda: moving.stats.detaches == 1, ring)
        assert time.monotonic() - started < 5
    finally:
        os.kill(server.pid, signal.SIGCONT)
    wait_for(server.releases)


# What the server may answer


@pytest.mark.parametrize("number", [EPERM, EDQUOT])
def test_a_refusal_reaches_the_application(ring, serve, udmabuf, number):
    server, target = serve(fuse_server.refuse(number))
    for _ in range(2):
        with fails(number):
            ring.register_dmabuf(0, udmabuf, target.fd)
    assert len(server.creates()) == 2
    wait_for(lambda: not attachments())
    time.sleep(0.2)
    assert server.releases() == [], "what was not granted does not end"


def test_a_server_that_knows_no_tokens_is_asked_once(ring, serve, udmabuf):
    server, target = serve(fuse_server.refuse(ENOSYS))
    for _ in range(3):
        with fails(EOPNOTSUPP):
            ring.register_dmabuf(0, udmabuf, target.fd)
    assert len(server.creates()) == 1


def test_reading_granted_alone(ring, serve, udmabuf):
    server, target = serve(fuse_server.grant_only(TOKEN_READ))
    ring.register_dmabuf(0, udmabuf, target.fd)
    read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0))
    with pytest.raises(OSError):
        ring.write_fixed(target.fd, 0, 4096, 8192)
    with open(target.path, "rb") as file:
        expect(file.read(), target.content)


ANSWERS = {
    "nothing allowed": struct.pack("=II", 0, 0),
    "more than was asked": struct.pack("=II", 7, 0),
    "unknown bits": struct.pack("=II", 1 | 1 << 31, 0),
    "empty": b"",
    "too short": bytes(4),
    "too long": struct.pack("=IIQ", 1, 0, 0),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_makes_no_sense(serve, udmabuf, answer):
    """The registration fails, or waits for a better answer; the connection and the caller survive."""
    server, target = serve(fuse_server.answer(ANSWERS[answer]))
    target.fd
    with Ring(flags=0, inherited=True) as ring:
        status = in_child(lambda: ring.register_dmabuf(0, udmabuf, target.fd), timeout=3)
    assert status == -signal.SIGKILL or status in (EIO, EINVAL), status
    wait_for(lambda: not attachments())
    with open(target.path, "rb") as file:
        assert file.read(4096) == target.content[:4096]


# Numbers that the kernel takes from no server: positive as they are sent, not an errno, and what only pointers carry.
OUT_OF_RANGE = [-EPERM, -600, 512, 600, 4095, 2**31]


def test_an_error_out_of_range_is_no_answer(serve, udmabuf):
    """The kernel refuses it from the server; the caller waits, and can be killed."""
    server, target = serve(lambda token: OUT_OF_RANGE)
    target.fd
    with Ring(flags=0, inherited=True) as ring:
        assert in_child(lambda: ring.register_dmabuf(0, udmabuf, target.fd), timeout=1) == -signal.SIGKILL
    wait_for(lambda: not attachments())
    with open(target.path, "rb") as file:
        assert file.read(4096) == target.content[:4096]


def test_a_good_answer_after_errors_out_of_range(ring, serve, udmabuf):
    server, target = serve(lambda token: [*OUT_OF_RANGE, fuse_server.grant(token)])
    ring.register_dmabuf(0, udmabuf, target.fd)
    read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0))
    assert len(server.creates()) == 1


TWICE = {"grants": [fuse_server.grant] * 2, "a grant, then a refusal": [fuse_server.grant, fuse_server.refuse(EPERM)]}


@pytest.mark.parametrize("answers", TWICE)
def test_a_grant_and_then_another_answer(ring, serve, udmabuf, answers):
    """The first one counts: one token, which ends once."""
    server, target = serve(lambda token: [answer(token) for answer in TWICE[answers]])
    for _ in range(2):
        ring.register_dmabuf(0, udmabuf, target.fd)
        read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0))
    assert len(tokens_of(server)) == 1
    ring.unregister(0)
    wait_for(lambda: len(server.releases()) == 2, ring)
    assert tokens_of(server) == [] and attachments() == 0
    assert [release.token for release in server.releases()] == [token.token for token in server.creates()]


def test_a_refusal_and_then_a_grant(ring, serve, udmabuf):
    server, target = serve(lambda token: [EPERM, fuse_server.grant(token)])
    for _ in range(2):
        with fails(EPERM):
            ring.register_dmabuf(0, udmabuf, target.fd)
    assert tokens_of(server) == [] and attachments() == 0
    assert len(server.creates()) == 2 and server.releases() == []


def tokens_of(server):
    """As the kernel lists them."""
    return connection(server, "dmabuf_tokens").read_text().splitlines()


def connection(server, name):
    return Path(f"/sys/fs/fuse/connections/{os.minor(os.stat(server.mountpoint).st_dev)}/{name}")


def test_a_server_that_never_answers_leaves_the_caller_killable(serve, moving):
    server, target = serve(fuse_server.no_answer)
    target.fd
    with Ring(flags=0, inherited=True) as ring:
        assert in_child(lambda: ring.register_dmabuf(0, moving, target.fd), timeout=2) == -signal.SIGKILL
    assert moving.stats.attaches == moving.stats.detaches
    with open(target.path, "rb") as file:
        assert file.read(4096) == target.content[:4096]


def slow(token):
    time.sleep(2)
    return fuse_server.grant(token)


def test_a_grant_for_somebody_who_was_killed_is_undone(serve, udmabuf):
    server, target = serve(slow)
    target.fd
    with Ring(flags=0, inherited=True) as ring:
        assert in_child(lambda: ring.register_dmabuf(0, udmabuf, target.fd), timeout=0.5) == -signal.SIGKILL
    wait_for(server.releases)
    (token,), (release,) = server.creates(), server.releases()
    assert (release.token, release.fh, release.reason) == (token.token, token.fh, FAILED)


def test_a_grant_for_a_file_that_is_closed_meanwhile_ends_before_the_file(serve, udmabuf):
    """The handle in the end of a token is never one that the server has already forgotten."""
    server, target = serve(slow)
    with Ring(flags=0, inherited=True) as ring:
        assert in_child(lambda: ring.register_dmabuf(0, udmabuf, os.open(target.path, DIRECT)), timeout=0.5) == -signal.SIGKILL
    wait_for(lambda: server.releases() and server.requests(RELEASE))
    assert [request.opcode for request in server.requests()] == [OPEN, TOKEN_CREATE, TOKEN_RELEASE, RELEASE]


def test_a_waiting_registration_does_not_hold_up_the_ring(serve, udmabuf):
    server, target = serve(slow)
    target.fd
    with Ring(flags=0) as ring:
        registration = threading.Thread(target=ring.register_dmabuf, args=(0, udmabuf, target.fd))
        registration.start()
        wait_for(server.creates)
        started = time.monotonic()
        assert ring.nop() == 0
        assert time.monotonic() - started < 1
        registration.join()
        read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0))


def test_a_grant_that_a_later_step_wastes_is_undone(ring, udmabuf, tmp_path):
    """The backing file cannot: the server hears of it, if it was asked at all."""
    for name in ("source", "mount"):
        (tmp_path / name).mkdir()
    make_file(tmp_path / "source/data", random_bytes(64 * KIB))
    with FuseServer(tmp_path / "source", tmp_path / "mount") as server:
        with opened(server.path("data")) as fd:
            for _ in range(3):
                with fails(EOPNOTSUPP):
                    ring.register_dmabuf(0, udmabuf, fd)
            wait_for(lambda: len(server.releases()) == len(server.creates()), ring)
            assert {release.reason for release in server.releases()} <= {FAILED}
            assert {r.token for r in server.releases()} == {t.token for t in server.creates()}


def test_a_grant_for_a_buffer_that_cannot_be_mapped_is_undone(ring, serve, moving):
    server, target = serve()
    target.fd
    moving.revoke()
    with pytest.raises(OSError):
        ring.register_dmabuf(0, moving, target.fd)
        ring.read_fixed(target.fd, 0, 4096, 0)
    ring.unregister(0)
    wait_for(lambda: len(server.releases()) == len(server.creates()), ring)


# When the server ends


def test_tokens_end_with_the_server(ring, serve, moving):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    read_and_compare(ring, target, moving, (0, MIB, 0))
    moving.fill()
    server.kill()
    wait_for(lambda: fails_with(ESTALE, ring, target))
    expect_untouched(moving)
    for _ in range(3):
        with fails(ESTALE):
            ring.read_fixed(target.fd, 0, 4096, 0)
    wait_for(lambda: moving.stats.maps == moving.stats.unmaps)


def fails_with(number, ring, target):
    """The end of the connection takes a moment; until then the token works."""
    try:
        ring.read_fixed(target.fd, 0, 4096, 0)
    except OSError as error:
        assert error.errno == number
        return True
    return False


def test_no_new_token_on_an_old_file_after_the_server(ring, serve, udmabuf):
    server, target = serve()
    target.fd
    server.kill()
    with fails(ENOTCONN):
        ring.register_dmabuf(0, udmabuf, target.fd)
    wait_for(lambda: not attachments())


def test_server_killed_under_reads(serve, moving):
    """Requests finish or fail, none hangs."""
    server, target = serve()
    with Ring(64) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for i in range(64):
            ring.prepare(READ_FIXED, target.fd, i * 32 * KIB, 32 * KIB, i * 32 * KIB)
        ring.submit()
        server.kill()
        assert set(ring.wait_all(64).values()) <= {32 * KIB, -ESTALE}
        wait_for(lambda: fails_with(ESTALE, ring, target))
    wait_for(lambda: moving.stats.detaches == 1)


def killed(server):
    server.kill()


def aborted(server):
    """By the administrator."""
    connection(server, "abort").write_text("1")


@pytest.mark.parametrize("end", [killed, aborted])
def test_connection_that_ends_while_the_server_is_asked(serve, udmabuf, end):
    server, target = serve(fuse_server.no_answer)
    target.fd
    with Ring(flags=0) as ring:
        failure = []

        def register():
            try:
                ring.register_dmabuf(0, udmabuf, target.fd)
            except OSError as error:
                failure.append(error.errno)

        registration = threading.Thread(target=register)
        registration.start()
        wait_for(server.creates)
        end(server)
        registration.join(20)
        assert not registration.is_alive()
        assert failure and failure[0] in (ENOTCONN, ECONNABORTED)
        with fails(ENOTCONN):
            ring.register_dmabuf(0, udmabuf, target.fd)
    wait_for(lambda: not attachments())


def test_connection_aborted_by_the_administrator(ring, serve, moving):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    aborted(server)
    wait_for(lambda: fails_with(ESTALE, ring, target))
    with fails(ENOTCONN):
        ring.register_dmabuf(1, moving, target.fd)
    ring.unregister(0)
    wait_for(lambda: moving.stats.detaches == 1, ring)


def test_tokens_of_other_mounts_live_on(serve, ext4, tmp_path, udmabuf, ring):
    server, target = serve()
    (tmp_path / "other").mkdir()
    with FuseServer(ext4, tmp_path / "other") as other:
        survivor = Target(other.path("data"), target.content)
        ring.register_dmabuf(0, udmabuf, target.fd)
        ring.register_dmabuf(1, udmabuf, survivor.fd)
        server.kill()
        wait_for(lambda: fails_with(ESTALE, ring, target))
        read_and_compare(ring, survivor, udmabuf, (0, 64 * KIB, 0), slot=1)
        survivor.close()


def test_unmounting_is_refused_while_a_token_exists(ring, serve, udmabuf):
    """As for any open file."""
    server, target = serve()
    ring.register_dmabuf(0, udmabuf, target.fd)
    target.close()
    with fails(EBUSY):
        server.unmount(lazy=False)


def test_tokens_outlive_a_lazy_unmount(ring, serve, udmabuf):
    server, target = serve()
    ring.register_dmabuf(0, udmabuf, target.fd)
    server.unmount()
    read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0))
    guest.run("mount", "-t", "tmpfs", "tmpfs", server.mountpoint)  # for the server's own unmount


# Servers that were there before tokens


def test_a_server_of_libfuse_that_knows_no_tokens(ring, udmabuf, ext4, tmp_path, trace):
    path, content = data_on_ext4(ext4)
    guest.run(guest.BED / "passthrough-server", path, tmp_path)
    try:
        with opened(tmp_path / "data") as fd:
            assert os.pread(fd, 0, 0) == b""
            for _ in range(2):
                with trace("fuse:fuse_request_send", key="opcode", where="opcode == 2048") as asked:
                    with fails(EOPNOTSUPP):
                        ring.register_dmabuf(0, udmabuf, fd)
            assert asked.hits == 0, "the kernel remembers"
        assert (tmp_path / "data").read_bytes() == content
    finally:
        guest.unmount(tmp_path)


def in_child(function, timeout=20):
    """Runs a function in a child: 0, the errno it failed with, or the negative signal; killed after the timeout."""
    pid = fork()
    if not pid:
        try:
            function()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
        finally:
            os._exit(255)
    deadline = time.monotonic() + timeout
    killed = False
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            assert not killed, "SIGKILL does not end it"
            os.kill(pid, signal.SIGKILL)
            killed, deadline = True, time.monotonic() + 10
        time.sleep(0.02)


# A server that never answers


@pytest.fixture(scope="module", autouse=True)
def silence(_ext4_root, tmp_path_factory):
    """Somebody asks a server that never answers, all the while that the other tests run: (server, what becomes of it)."""
    source, mountpoint = _ext4_root / "silence", tmp_path_factory.mktemp("silence")
    source.mkdir()
    path, content = data_on_ext4(source, 64 * KIB)
    with FuseServer(source, mountpoint, fuse_server.no_answer) as server:
        outcome, told = os.pipe()
        pid = fork()
        if not pid:
            os.write(told, ask(Target(server.path(path.name), content)))
            signal.pause()  # what follows the end of a process is not to be counted by another test
        yield server, outcome
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(outcome)
        os.close(told)
    shutil.rmtree(source)


def ask(target):
    """The errno, and after how many seconds it came."""
    started, number = time.monotonic(), 0
    try:
        with Ring() as ring, Udmabuf(64 * KIB) as buffer:
            ring.register_dmabuf(0, buffer, target.fd)
    except OSError as error:
        number = error.errno
    return struct.pack("=id", number, time.monotonic() - started)


def test_a_question_is_given_up_after_half_a_minute(silence):
    server, outcome = silence
    number, seconds = struct.unpack("=id", os.read(outcome, 12))
    assert number == ETIMEDOUT and 29 < seconds < 60
    assert [request.opcode for request in server.requests()] == [OPEN, TOKEN_CREATE]
    wait_for(lambda: not attachments())
