"""Fixtures for the tests that run in the virtual machine (tests/bed/vm). Names are those of the project; the plumbing is in tests/bed/guest.py."""
import faulthandler
import os
import re
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'bed'))
import guest  # noqa: E402
from filesystems import MOUNT, ROOT, Filesystems  # noqa: E402

REPORT = re.compile('|'.join(Path(guest.__file__).with_name('kernel-reports').read_text().split('\n')[:-1]))
KMEMLEAK = Path('/sys/kernel/debug/kmemleak')


@pytest.fixture(scope='session')
def nvme():
    """The NVMe device: .device, .namespace and .controller (sysfs), .pci, .size, .max_transfer."""
    return guest.Nvme()


@pytest.fixture(scope='session')
def filesystems(nvme):
    """What the device holds: filesystems.hold('xfs') mounts that one, and keeps it until another is asked for."""
    filesystems = Filesystems(nvme.device)
    yield filesystems
    filesystems.clear()


@pytest.fixture(scope='module')
def _ext4_root(filesystems):
    return filesystems.hold('ext4')


@pytest.fixture
def _ext4_held(filesystems):
    return filesystems.hold('ext4')


@pytest.fixture
def ext4(_ext4_held, request):
    """An empty directory on an ext4 file system on the NVMe device."""
    directory = _ext4_held / re.sub(r'\W+', '-', request.node.name)
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mount(ext4, tmp_path):
    """That directory mounted with the server: .path, and .source behind it."""
    target = guest.mount_server(ext4, tmp_path / 'mount')
    yield SimpleNamespace(path=target, source=ext4)
    if os.path.ismount(target):
        guest.unmount(target)


@pytest.fixture(scope='session')
def vram():
    """PCI address of the device whose BAR plays VRAM, bound to vfio-pci."""
    return guest.bind_vfio(guest.find_vram())


@pytest.fixture
def trace():
    """Counts tracepoint hits: with trace('nvme:nvme_setup_cmd', key='opcode', where='qid > 0') as seen: ...; seen.hits, seen.by_key, seen.sums."""
    return guest.trace


@pytest.fixture(scope='session', autouse=True)
def _modules():
    guest.load_modules()


@pytest.fixture(scope='session', autouse=True)
def _way_of_requests(request):
    guest.offer_io_uring(request.config.getoption('--requests') == 'io_uring')


@pytest.fixture(scope='session', autouse=True)
def _no_leaked_kernel_memory(_modules):
    """After the last test: objects that nothing points to any more. What is new kmemleak takes note of, and reports when it scans again."""
    yield
    if not KMEMLEAK.exists():
        return
    started = time.monotonic()
    KMEMLEAK.write_text('scan')
    time.sleep(max(0, started + 5 - time.monotonic()))   # what is younger is not reported
    KMEMLEAK.write_text('scan')
    leaks = KMEMLEAK.read_text()
    if leaks:
        pytest.fail(f'kmemleak:\n{leaks}', pytrace=False)


@pytest.fixture(autouse=True)
def _no_hang_is_told(request):
    """Of a test that takes as long as it was asked to, which has a timeout of its own: pytest.ini's faulthandler_timeout is for all others."""
    if request.node.get_closest_marker('timeout'):
        faulthandler.cancel_dump_traceback_later()


def without_limits_of_cgroups(lines):
    """Without what is said of a process that was killed as its control group had no memory left, which is no fault."""
    text = '\n'.join(lines)
    return re.sub(r'.* invoked oom-killer:(?:(?! invoked oom-killer:)[\s\S])*?\n.*Memory cgroup out of memory: Killed process.*', '', text).split('\n')


@pytest.fixture(autouse=True)
def _no_kernel_report():
    """Fails a test during which the kernel complained."""
    log = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    yield
    lines = []
    try:
        while True:
            try:
                lines.append(os.read(log, 8192).decode(errors='replace').split(';', 1)[-1].split('\n', 1)[0])
            except BrokenPipeError:   # records were overwritten before we came: go on with the oldest
                continue
    except BlockingIOError:
        pass
    finally:
        os.close(log)
    lines = without_limits_of_cgroups(lines)
    if any(REPORT.search(line) for line in lines):
        pytest.fail('the kernel log has a report:\n' + '\n'.join(lines), pytrace=False)


# What tests share may appear with any of them.
SHARED = {str(ROOT), str(MOUNT)}


def _mounts():
    lines = (line.split() for line in Path('/proc/self/mounts').read_text().splitlines())
    return {tuple(words[:3]) for words in lines if words[1] not in SHARED}


def _process_ids():
    """Of programs, by the control group that tests/bed/guest-agent makes: /proc has a directory for each thread of the kernel, too."""
    return set(Path('/sys/fs/cgroup/bed/cgroup.procs').read_text().split())


def _commands(process_ids):
    for process_id in process_ids:
        try:
            words = os.fsdecode(Path(f'/proc/{process_id}/cmdline').read_bytes()).split('\0')
        except OSError:
            continue
        if not SHARED & set(words):
            yield ' '.join([process_id, *words])


@pytest.fixture(autouse=True)
def _nothing_left_behind(_no_kernel_report):
    """Fails a test that leaves a mount or a process."""
    mounts, processes = _mounts(), _process_ids()
    yield
    deadline = time.monotonic() + 10   # a server ends a moment after its umount
    while time.monotonic() < deadline:
        left = [*(_mounts() - mounts), *_commands(_process_ids() - processes)]
        if not left:
            return
        time.sleep(0.1)
    pytest.fail(f'left behind: {left}', pytrace=False)
