"""What the kernel remembers of names and attributes: cache=auto, none and always. And what stays when it forgets."""
import os
import time

import pytest

import guest
from places import server_of, wait_until


@pytest.fixture
def mounted(ext4, tmp_path):
    """mounted(options): the mount of the source."""
    yield lambda options: guest.mount_server(ext4, tmp_path / 'mount', options)
    guest.unmount(tmp_path / 'mount')


def test_without_a_cache_changes_in_the_source_are_seen_at_once(ext4, mounted):
    target = mounted('cache=none')
    for i in range(20):
        (ext4 / 'file').write_text('x' * i)
        assert os.stat(target / 'file').st_size == i
        os.rename(ext4 / 'file', ext4 / 'moved')
        assert os.listdir(target) == ['moved'] and not (target / 'file').exists()
        os.rename(ext4 / 'moved', ext4 / 'file')
        assert (target / 'file').read_text() == 'x' * i


def test_by_default_they_are_seen_within_a_second(ext4, mounted):
    (ext4 / 'file').write_text('x')
    target = mounted('cache=auto')
    assert os.stat(target / 'file').st_size == 1
    (ext4 / 'file').write_text('xx')
    began = time.monotonic()
    wait_until(lambda: os.stat(target / 'file').st_size == 2)
    assert time.monotonic() - began < 1.5


def test_with_cache_always_what_is_known_is_not_asked_again(ext4, mounted, trace):
    (ext4 / 'file').write_text('x')
    target = mounted('cache=always')
    os.stat(target / 'file')
    (ext4 / 'file').write_text('xx')
    time.sleep(1.2)
    with trace('fuse:fuse_request_send') as requests:
        for _ in range(100):
            assert os.stat(target / 'file').st_size == 1
    assert requests.hits == 0


def test_with_cache_always_changes_through_the_mount_are_seen(mounted):
    target = mounted('cache=always')
    (target / 'file').write_text('one')
    (target / 'file').write_text('longer')
    assert (target / 'file').read_text() == 'longer' and os.stat(target / 'file').st_size == 6
    os.rename(target / 'file', target / 'other')
    assert os.listdir(target) == ['other']
    assert (target / 'other').read_text() == 'longer'


def test_inode_numbers_are_those_of_the_source_and_outlive_the_kernels_memory(ext4, mounted):
    target = mounted('cache=auto')
    (target / 'd').mkdir()
    (target / 'd/file').write_text('x')
    opened = os.open(target / 'd/file', os.O_RDWR)
    before = [os.stat(target / name).st_ino for name in ('d', 'd/file')]
    with open('/proc/sys/vm/drop_caches', 'w', encoding='ascii') as drop:
        drop.write('2')
    assert [os.stat(target / name).st_ino for name in ('d', 'd/file')] == before == [os.stat(ext4 / name).st_ino for name in ('d', 'd/file')]
    os.write(opened, b'still')
    assert (target / 'd/file').read_text() == 'still' and os.fstat(opened).st_ino == before[1]
    os.close(opened)


def test_deep_tree_and_many_files_are_forgotten_again(ext4, mounted):
    """A node that the kernel forgets costs no descriptor any more."""
    target = mounted('cache=auto')
    deep = target / '/'.join('d' * 20)
    deep.mkdir(parents=True)
    for i in range(300):
        os.close(os.open(deep / str(i), os.O_CREAT | os.O_WRONLY))
    assert len(os.listdir(deep)) == 300
    server = server_of(target)
    with open('/proc/sys/vm/drop_caches', 'w', encoding='ascii') as drop:
        drop.write('2')
    wait_until(lambda: len(os.listdir(f'/proc/{server}/fd')) < 100)

