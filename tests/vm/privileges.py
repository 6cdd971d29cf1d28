"""Callers of many kinds: users, holders of some capabilities only, roots of user namespaces."""
import contextlib
import ctypes
import os
import re
import traceback
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CAPABILITY_VERSION_3 = 0x20080522
CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, SYS_RESOURCE, MKNOD, SETFCAP = 0, 1, 3, 4, 21, 24, 27, 31


class Header(ctypes.Structure):
    _fields_ = [('version', ctypes.c_uint32), ('pid', ctypes.c_int)]


class Sets(ctypes.Structure):
    _fields_ = [('effective', ctypes.c_uint32), ('permitted', ctypes.c_uint32), ('inheritable', ctypes.c_uint32)]


def capabilities_in(field):
    mask = int(re.search(rf'^{field}:\t(\w+)', Path('/proc/thread-self/status').read_text(), re.MULTILINE)[1], 16)
    return {number for number in range(64) if mask >> number & 1}


def permitted():
    """The capabilities that this process may use."""
    return capabilities_in('CapPrm')


def use_capabilities(numbers):
    """Makes these of the permitted capabilities effective, and no others. Of this thread."""
    header, sets = Header(CAPABILITY_VERSION_3, 0), (Sets * 2)()
    check(LIBC.capget(ctypes.byref(header), sets))
    for i in range(2):
        sets[i].effective = sum(1 << number - 32 * i for number in numbers if number // 32 == i)
    check(LIBC.capset(ctypes.byref(header), sets))


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def become(uid, gid, groups, capabilities):
    os.seteuid(0)
    use_capabilities(permitted())
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    use_capabilities(capabilities)


@contextlib.contextmanager
def acting_as(uid, groups=(), capabilities=()):
    """This process acts as a user, with the capabilities named. The real uid stays root's, so that the process can return to what it was."""
    before = os.geteuid(), os.getegid(), os.getgroups(), capabilities_in('CapEff')
    become(uid, uid, groups, capabilities)
    try:
        yield
    finally:
        become(*before)


def acting_as_root():
    """In the midst of acting as a user."""
    return acting_as(0, capabilities=permitted())


def start_in_user_namespace(ids, function):
    """Runs a function as root of a user namespace in a process of its own, for end_of(). The namespace maps ids ('0 100000 1000') of users and groups alike."""
    is_there, may_go = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.close(is_there[1])
        os.close(may_go[0])
        if os.read(is_there[0], 1):
            for name in ('uid_map', 'gid_map'):
                Path(f'/proc/{child}/{name}').write_text(ids)
        os.close(is_there[0])
        os.close(may_go[1])
        return child
    status = 1
    try:
        os.close(may_go[1])
        os.unshare(os.CLONE_NEWUSER)
        os.write(is_there[1], b'x')
        os.read(may_go[0], 1)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)
