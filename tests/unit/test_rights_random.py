"""Nobody has a right on the mount that the file system below does not give, and nobody is refused what it grants: random steps of many callers, compared."""
import contextlib
import faulthandler
import os
import random
import subprocess
from dataclasses import replace

import pytest

import rights_model
from rights_callers import CALLERS
from rights_model import Trial
from server import Server

pytestmark = pytest.mark.filterwarnings('ignore:.*use of fork.*:DeprecationWarning')   # the children call nothing that other threads hold
FILE_SYSTEMS = {'ext4': ('mkfs.ext4', '-q', '-b', '4096'), 'xfs': ('mkfs.xfs', '-q')}
SIZE = 320 << 20   # mkfs.xfs makes none that is smaller than 300 MiB


@contextlib.contextmanager
def new_file_system(kind, scratch, name):
    image, directory = scratch / f'{name}.image', scratch / name
    directory.mkdir()
    image.touch()
    os.truncate(image, SIZE)
    subprocess.run([*FILE_SYSTEMS[kind], image], check=True)
    mounted = subprocess.run(['mount', '-o', 'loop,nosuid,nodev,noatime', image, directory], text=True, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f'no {kind} can be mounted from a file here: {mounted.stderr}')
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        subprocess.run(['umount', directory], check=True)


@pytest.fixture(scope='module')
def scratch(tmp_path_factory):
    """A directory that all users can walk to."""
    directory = tmp_path_factory.mktemp('rights')
    for path in (directory, *list(directory.parents)[:-2]):
        path.chmod(0o755)
    return directory


@pytest.fixture(scope='module', params=FILE_SYSTEMS)
def twins(request, scratch):
    """Two new file systems of the same kind."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(new_file_system(request.param, scratch, f'{request.param}-{name}')) for name in ('plain', 'source')]


@pytest.fixture
def mounts(program, twins, scratch, request):
    """mounts(options): two mounts of the second twin."""
    def begin(options):
        targets = []
        for name in ('mount', 'other'):
            target = scratch / f'{request.node.name}-{name}'
            target.mkdir(mode=0o755)
            server = Server(program, twins[1], target, target.with_suffix('.log'), f'log=info,{options}')
            request.addfinalizer(server.end)
            assert server.process.poll() is None, server.said()
            targets.append(target)
        return targets
    return begin


@pytest.fixture
def seed(request):
    """The seed, and the round to begin with."""
    seed, _, first = request.config.getoption('rights_seed').partition('/')
    if seed == 'random':
        seed = f'{random.SystemRandom().randrange(1, 1 << 32)}'
    print(f'seed {seed}')
    return seed, int(first or 0)


@contextlib.contextmanager
def trial_of(*arguments, **options):
    trial = Trial(*arguments, **options)
    try:
        yield trial
        print(f'{trial.done} steps; rounds that ended early: {dict(trial.over)}')
    finally:
        trial.end()


@pytest.mark.timeout(36000)   # as long as was asked for
@pytest.mark.parametrize('cache', ['none', 'auto'])
def test_mount_gives_the_rights_of_the_file_system_below(twins, mounts, cache, seed, request):
    faulthandler.cancel_dump_traceback_later()   # the same
    with trial_of(*twins, *mounts(f'cache={cache}'), remembers_names=cache == 'auto') as trial:
        trial.search(*seed, request.config.getoption('rights') / 4)


# The tester itself

@pytest.mark.parametrize('twins', ['ext4'], indirect=True)
def test_two_plain_file_systems_do_not_differ(twins, seed):
    with trial_of(*twins, twins[1], twins[1], remembers_names=False) as trial:
        trial.search(*seed, 1)


@pytest.mark.parametrize('twins', ['ext4'], indirect=True)
@pytest.mark.parametrize('change, verdict', [({'capabilities': ('fowner',)}, 'grants what the plain file system refuses'),
                                             ({'uid': 4000}, 'refuses what the plain file system grants'),
                                             ({'umask': 0o070}, 'leaves another state')])
def test_caller_who_is_somebody_else_on_the_mount_is_seen(twins, change, verdict, monkeypatch):
    """What the tester is for: it would fail."""
    def altered(caller):
        return replace(caller, **change) if caller == CALLERS['alice'] else caller
    monkeypatch.setattr(rights_model, 'SHRINKING', 0)
    with trial_of(*twins, twins[1], twins[1], remembers_names=False, altered=altered) as trial, pytest.raises(AssertionError, match=verdict):
        trial.search(1, 0, 20)
