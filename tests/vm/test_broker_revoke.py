"""Tokens are taken back: on demand, and by themselves when the right ends."""
import contextlib
import os
import random
import signal
import subprocess
import time
from errno import EACCES, EDQUOT, ESTALE

import pytest

from broker_fixtures import *  # noqa: F403
from broker_fixtures import SIZE, as_user, command
from dmabuf import TestBuffer
from places import wait_until
from token_words import DIRECT, KIB, expect, fails, in_background, random_bytes
from uring import READ_FIXED, Ring


def works(used):
    """Whether the token still reads: the bytes, or ESTALE and nothing else."""
    ring, fd, buffer = used
    buffer[0:4096] = bytes(4096)
    try:
        assert ring.read_fixed(fd, 0, 4096, 0) == 4096
    except OSError as error:
        assert error.errno == ESTALE
        assert buffer[0:4096] == bytes(4096)
        return False
    expect(buffer[0:4096], random_bytes(SIZE)[:4096])
    return True


@pytest.fixture
def policy(tmp_path):
    """policy(text) writes the file; policy.path names it."""
    def write(text):
        write.path.write_text(text)
        write.path.chmod(0o600)
    write.path = tmp_path / 'policy.conf'
    return write


def reload(broker, said='is the policy now'):
    before = len(broker.said(said))
    broker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(broker.said(said)) > before)


# On demand

def test_revoked_token_stays_listed_and_counts_no_more_until_it_is_let_go(serve, use):
    broker = serve(f'max_bytes={SIZE + 64 * KIB}')
    first, second = use(broker.target / 'file'), use(broker.target / 'file', 64 * KIB)
    assert broker.revoke('--token', broker.tokens()[0]['id']) == 1
    assert [works(first), works(second)] == [False, True]
    assert [token['revoked'] for token in broker.tokens()] == [True, False]
    assert broker.status()['all'] == {'tokens': 1, 'bytes': 64 * KIB}
    third = use(broker.target / 'file')
    assert works(third)
    first[0].unregister(0)
    wait_until(lambda: len(broker.tokens()) == 2)
    assert broker.said(r'token 1 revoked: .* 0 requests, 0 bytes read')


def test_token_is_revoked_once(serve, use):
    broker = serve()
    use(broker.target / 'file')
    assert [broker.revoke('--all'), broker.revoke('--all')] == [1, 0]
    assert 'no such token' in command('revoke', broker.target, '--token', 77, check=False).stderr


def test_revoke_by_path(serve, use):
    broker = serve()
    (broker.target / 'd').mkdir()
    for name in ('d/one', 'd/two', 'three'):
        os.link(broker.source / 'file', broker.source / name) if name == 'three' else (broker.source / name).write_bytes(random_bytes(SIZE))
    one, two, file = (use(broker.target / name) for name in ('d/one', 'd/two', 'file'))
    assert broker.revoke('--path', '/d/o*') == 1
    assert [works(one), works(two), works(file)] == [False, True, True]
    assert broker.revoke('--path', '/d') == 1
    assert [works(two), works(file)] == [False, True]


def test_revoke_by_user(serve, use):
    broker = serve()
    roots, users = use(broker.target / 'file'), use(broker.target / 'file', uid=1000)
    assert broker.revoke('--uid', 1000) == 1
    assert [works(roots), works(users)] == [True, False]


DEPTH, PIECE = 64, 16 * KIB


def asked(**which):
    """By the control socket."""
    def end(broker):
        assert broker.ask(command='revoke', **which) == {'ok': True, 'revoked': 1}
    return end


def chmod(broker):
    (broker.target / 'file').chmod(0o600)


def unlink(broker):
    (broker.target / 'file').unlink()


def new_policy(broker):
    broker.policy('rules = ( { allow = "none"; } );')
    reload(broker)


WAYS = {'one token': asked(token=1), 'by path': asked(path='/file'), 'all at once': asked(all=True), 'chmod': chmod, 'revoke_on_unlink': unlink,
        'reload': new_policy}


@pytest.mark.parametrize('way', WAYS)
def test_nothing_is_written_after_the_token_was_revoked(serve, policy, way):
    """When that has returned. 64 reads in flight, each from another place than the last, so that what comes late is seen."""
    policy('max_tokens = 3;')
    broker = serve(f'revoke-on-unlink,policy={policy.path}')
    broker.policy = policy
    fd = os.open(broker.target / 'file', DIRECT)
    with TestBuffer(DEPTH * PIECE) as buffer, Ring(DEPTH, flags=0, inherited=True) as ring:
        buffer.fill()
        as_user(1000, [], lambda: ring.register_dmabuf(0, buffer, fd))
        results = set()

        def keep_reading():
            for i in range(DEPTH):
                ring.prepare(READ_FIXED, fd, i * PIECE, PIECE, random.randrange(SIZE // PIECE) * PIECE)
            ring.submit()
            results.update(ring.wait_all(DEPTH).values())

        with in_background(keep_reading):
            wait_until(lambda: results)
            before = buffer[:]
            wait_until(lambda: buffer[:] != before)
            WAYS[way](broker)
            left = buffer[:]
            wait_until(lambda: -ESTALE in results)
            time.sleep(1)
            expect(buffer[:], left, 'what was there when it returned')
        assert results == {PIECE, -ESTALE}
    os.close(fd)


def test_program_may_register_again(serve, use):
    broker = serve()
    ring, fd, buffer = use(broker.target / 'file')
    broker.revoke('--all')
    ring.unregister(0)
    ring.register_dmabuf(0, buffer, fd)
    assert works((ring, fd, buffer))


# Two mounts

def test_mounts_of_one_directory_know_nothing_of_each_other(serve, use):
    one, other = serve('max_tokens=1'), serve('max_tokens=1')
    used = [use(broker.target / 'file') for broker in (one, other)]
    with fails(EDQUOT):
        use(one.target / 'file')
    assert one.revoke('--all') == 1
    assert [works(u) for u in used] == [False, True]
    assert [len(broker.tokens()) for broker in (one, other)] == [1, 1]


# The right ends

LOSSES = ['chmod 600 file', 'chmod o-r file', 'setfacl -m u:1000:- file']


@pytest.mark.parametrize('loss', LOSSES)
def test_owner_loses_the_token_with_the_permission(serve, use, loss):
    broker = serve()
    roots, users = use(broker.target / 'file'), use(broker.target / 'file', uid=1000)
    subprocess.run(loss, shell=True, cwd=broker.target, check=True)
    assert [works(roots), works(users)] == [True, False]
    assert broker.said('token 2 is revoked: .* the permissions of the file')
    with fails(EACCES):
        use(broker.target / 'file', uid=1000)


def test_owner_loses_the_token_with_the_acl(serve, use):
    """Which alone gave the right."""
    broker = serve()
    subprocess.run('chmod 600 file; setfacl -m u:1000:r file', shell=True, cwd=broker.target, check=True)
    with fails(EACCES):
        use(broker.target / 'file', uid=1001)
    used = use(broker.target / 'file', uid=1000)
    assert works(used)
    os.removexattr(broker.target / 'file', 'system.posix_acl_access')
    assert not works(used)


def test_owner_loses_the_token_with_the_file(serve, use):
    broker = serve()
    subprocess.run('chown 1000 file; chmod 600 file', shell=True, cwd=broker.target, check=True)
    used = use(broker.target / 'file', uid=1000)
    os.chown(broker.target / 'file', 1001, -1)
    assert not works(used)


def test_change_that_leaves_the_right_leaves_the_token(serve, use):
    broker = serve()
    group, everybody = use(broker.target / 'file', uid=1000, groups=[2000]), use(broker.target / 'file', uid=1001)
    subprocess.run('chgrp 2000 file; chmod 640 file', shell=True, cwd=broker.target, check=True)
    assert [works(group), works(everybody)] == [True, False]


@pytest.mark.parametrize('removal', ['rm file', 'touch other; mv -f other file'])
@pytest.mark.parametrize('option, stays', [('revoke-on-unlink', False), ('tokens=allow', True)])
def test_removed_file(serve, use, removal, option, stays):
    broker = serve(option)
    ring, fd, buffer = use(broker.target / 'file')
    subprocess.run(removal, shell=True, cwd=broker.target, check=True)
    assert works((ring, fd, buffer)) == stays
    # Who still has it open cannot ask again.
    with contextlib.nullcontext() if stays else fails(EACCES):
        ring.register_dmabuf(1, buffer, fd)


def test_file_with_another_name_is_not_removed(serve, use):
    broker = serve('revoke-on-unlink')
    used = use(broker.target / 'file')
    os.link(broker.target / 'file', broker.target / 'second')
    os.unlink(broker.target / 'file')
    assert works(used)
    os.unlink(broker.target / 'second')
    assert not works(used)


# The policy

def test_lowered_quota_takes_the_newest_tokens(serve, use, policy):
    policy('max_tokens = 3;')
    broker = serve(f'policy={policy.path}')
    used = [use(broker.target / 'file', 64 * KIB) for _ in range(3)]
    with fails(EDQUOT):
        use(broker.target / 'file', 64 * KIB)
    policy('user_max_bytes = "64K";')
    reload(broker)
    assert [works(u) for u in used] == [True, False, False]


def test_policy_with_a_mistake_is_refused_and_the_old_one_stays(serve, use, policy):
    policy('max_tokens = 1;')
    broker = serve(f'policy={policy.path}')
    used = use(broker.target / 'file')
    policy('max_tokens = 2;\nrules = ( { allow = "everything"; } );')
    reload(broker, 'stays as it was')
    assert broker.said(f'{policy.path}:2: allow must be')
    with fails(EDQUOT):
        use(broker.target / 'file')
    assert works(used)


def test_mount_with_a_mistake_in_the_policy_fails(ext4, tmp_path, policy):
    policy('max_tokens = none;')
    result = subprocess.run(['mount', '-t', 'fuse-dmabuf', ext4, tmp_path, '-o', f'policy={policy.path}'], text=True, capture_output=True, check=False)
    assert f'{policy.path}:1: ' in result.stderr and result.returncode
    assert not os.path.ismount(tmp_path)


def test_rules_by_user_group_path_and_direction(serve, use, policy):
    policy('''rules = (
        { path = "/private"; allow = "none"; },
        { group = 2000; allow = "read"; },
        { user = 1001; allow = "read-write"; },
        { user = "root"; allow = "read-write"; },
        { allow = "none"; } );''')
    broker = serve(f'policy={policy.path}')
    (broker.target / 'private').mkdir()
    (broker.source / 'private/file').write_bytes(random_bytes(SIZE))
    for used in (use(broker.target / 'file', uid=1000, groups=[2000]), use(broker.target / 'file', uid=1001), use(broker.target / 'file')):
        assert works(used)
    with fails(EACCES):
        use(broker.target / 'file', uid=1002)
    with fails(EACCES):
        use(broker.target / 'private/file')


NAMES = ['file', 'file (deleted)']


@pytest.mark.parametrize('name', NAMES)
def test_rules_by_path_hold_for_a_file_that_was_removed(serve, use, policy, name):
    policy(f'''rules = ( {{ path = "/{name}"; allow = "read"; }}, {{ allow = "none"; }} );''')
    broker = serve(f'policy={policy.path}')
    for other in NAMES:
        (broker.source / other).write_bytes(random_bytes(SIZE))
    ring, fd, buffer = used = use(broker.target / name)
    (other,) = set(NAMES) - {name}
    with fails(EACCES):
        use(broker.target / other)
    os.unlink(broker.target / name)
    ring.register_dmabuf(1, buffer, fd)
    reload(broker)
    assert works(used) and [token['revoked'] for token in broker.tokens()] == [False, False]
    assert broker.revoke('--path', f'/{other}') == 0 and broker.revoke('--path', f'/{name}') == 2


def test_direction_is_what_rules_and_permissions_leave(serve, use, policy):
    policy('rules = ( { user = 1000; allow = "read"; } );')
    broker = serve(f'policy={policy.path}')
    (broker.target / 'file').chmod(0o666)
    use(broker.target / 'file', uid=1000, flags=os.O_RDWR | os.O_DIRECT)
    use(broker.target / 'file', uid=1001, flags=os.O_RDWR | os.O_DIRECT)
    assert [token['direction'] for token in broker.tokens()] == ['read', 'read-write']
    policy('rules = ( { allow = "read"; } );')
    reload(broker)
    assert [token['revoked'] for token in broker.tokens()] == [False, True]
