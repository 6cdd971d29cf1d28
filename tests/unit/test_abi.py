"""The binary interface of the library: what it exports, as which version, and that programs built with the last release still run with it."""
import json
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HEADER = CHECKOUT / 'include/fuse-dmabuf.h'
RELEASED = CHECKOUT / 'tests/abi/libfuse-dmabuf.abi'
FUNCTIONS = set(re.findall(r'^FDMABUF_API\s[^;(]*?(\w+)\(', HEADER.read_text(), re.MULTILINE))
VERSION = '.'.join(re.search(rf'^#define FDMABUF_VERSION_{part} (\d+)$', HEADER.read_text(), re.MULTILINE)[1] for part in ('MAJOR', 'MINOR', 'PATCH'))
# Bits of abidiff's exit status.
ERROR, USAGE, CHANGE, INCOMPATIBLE = 1, 2, 4, 8

PROGRAM = '''
#include <fuse-dmabuf.h>
#include <stdio.h>

int main(void)
{
	puts(fdmabuf_version());
	return 0;
}
'''


def run(*command, **options):
    result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope='module')
def shared(build):
    return build / 'src/libfuse-dmabuf/libfuse-dmabuf.so.1'


@pytest.fixture(scope='module')
def installed(build, tmp_path_factory):
    """What a package of the library would have: the root of an installation."""
    root = tmp_path_factory.mktemp('root')
    run('meson', 'install', '-C', build, '--no-rebuild', '--quiet', '--destdir', root)
    return root


@pytest.fixture(scope='module')
def pkg_config(installed):
    """pkg_config(option, …): what it prints for a library that is installed below that root."""
    path = next(installed.rglob('fuse-dmabuf.pc')).parent
    return lambda *options: run('pkg-config', *options, 'fuse-dmabuf', env={'PATH': '/usr/bin', 'PKG_CONFIG_PATH': path, 'PKG_CONFIG_SYSROOT_DIR': installed}).split()


def exported(shared):
    """{symbol: its version}"""
    lines = run('nm', '--dynamic', '--defined-only', '--with-symbol-versions', shared).splitlines()
    symbols = [line.split() for line in lines]
    return dict(name.split('@@') for _, kind, name in symbols if kind != 'A')   # A: the version nodes themselves


def test_each_function_of_the_header_is_exported_and_nothing_else(shared):
    assert FUNCTIONS and set(exported(shared)) == FUNCTIONS, 'fuse-dmabuf.map lists what is exported'


def number_of(version):
    return tuple(map(int, version.removeprefix('FUSE_DMABUF_').split('.')))


def test_new_symbols_have_a_new_version(shared):
    """A program that needs a function of 0.3 is then not started with the library 0.2, rather than ending in the middle."""
    released = dict(re.findall(r"<elf-symbol name='(\w+)' version='([\w.]+)'", RELEASED.read_text()))
    last = max(map(number_of, released.values()))
    new = {name: version for name, version in exported(shared).items() if name not in released}
    assert [name for name, version in new.items() if number_of(version) <= last] == [], 'put it into a new node of fuse-dmabuf.map'
    assert all(number_of(version) <= number_of(VERSION) for version in new.values())


def test_name_of_the_library_has_the_number_of_its_binary_interface(shared):
    assert re.search(r'\(SONAME\).*\[(.*)\]', run('readelf', '--dynamic', '--wide', shared))[1] == 'libfuse-dmabuf.so.1'


def test_version_is_the_same_everywhere(library, build, pkg_config):
    assert library.version().decode() == VERSION
    assert json.loads(run('meson', 'introspect', '--projectinfo', build))['version'] == VERSION
    assert pkg_config('--modversion') == [VERSION]


def test_program_is_built_with_pkg_config_and_runs(tmp_path, installed, pkg_config):
    (tmp_path / 'program.c').write_text(PROGRAM)
    run('gcc', '-o', tmp_path / 'program', tmp_path / 'program.c', *pkg_config('--cflags', '--libs'))
    folder = next(installed.rglob('libfuse-dmabuf.so.1')).parent
    assert run(tmp_path / 'program', env={'LD_LIBRARY_PATH': str(folder)}) == f'{VERSION}\n'


@pytest.mark.parametrize('compiler', ['gcc -std=c11', 'g++ -std=c++17'])
def test_header_can_be_included_alone(compiler, tmp_path):
    source = tmp_path / ('program.cc' if 'g++' in compiler else 'program.c')
    source.write_text(f'#include "{HEADER}"\nint main(void) {{ return !fdmabuf_version(); }}\n')
    run(*compiler.split(), '-Wall', '-Wextra', '-pedantic', '-Werror', '-fsyntax-only', source)


def test_programs_built_with_the_last_release_still_run(shared):
    # Not with the public headers only: abidiff then takes all structs of the dump, which knows no files, for private and ignores their changes.
    result = subprocess.run(['abidiff', '--no-added-syms', '--no-show-locs', RELEASED, shared], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert not result.returncode & (ERROR | USAGE), result.stdout
    assert not result.returncode & (CHANGE | INCOMPATIBLE), f'''the binary interface is not that of {RELEASED.name}:
{result.stdout}
A program that was built with the last release may not run with this library.
- Change it back where you can: a function that has to change gets another name, and a new node in fuse-dmabuf.map.
- If structs with a member "size" have only grown at their ends, or enums have new values, such programs still run: run tests/abi/dump.
- Otherwise programs must be built again: raise soversion in src/libfuse-dmabuf/meson.build, and run tests/abi/dump.'''
