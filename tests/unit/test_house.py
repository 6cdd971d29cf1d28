"""The server and the library are houses: each folder is a room, and its main header says which rooms below it may call ("May call:").

C files are looked at as text: what they include, and how wide their lines are.
"""
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HOUSES = [CHECKOUT / 'src/mount.fuse-dmabuf', CHECKOUT / 'src/libfuse-dmabuf']
ROOMS = sorted(path for house in HOUSES for path in house.iterdir() if path.name != 'test' and list(path.glob('*.c')))
# These belong to no room: any may include them.
FOR_ALL = {'check.h', 'fuse-dmabuf.h'}
COLUMNS = 100
# Not ours to change: as it was published, to see that programs of others run.
FOREIGN = {'tests/vm/abi-client.c'}


def name_of(path):
    return str(path.relative_to(CHECKOUT / 'src'))


def sources(*folders):
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob('*.[ch]'))]


def includes(path):
    return re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)


def statements(room):
    """What the headers of a room say that it may call: a list of sets, one for each header that says so."""
    found = [re.search(r'^ \* May call: ([a-z, ]+)\.$', path.read_text(), re.MULTILINE) for path in sorted(room.glob('*.h'))]
    return [set(match[1].split(', ')) - {'nothing'} for match in found if match]


MAY_CALL = {room: set().union(*statements(room)) for room in ROOMS}


def arrows(room):
    """(file, included header) for all that a room includes of others, common/ aside. Tests of a room belong to it."""
    for path in sources(room):
        for name in includes(path):
            if name not in FOR_ALL and name.split('/')[0] not in {room.name, 'common'}:
                yield name_of(path), name


def every(things):
    """A test for each of these paths."""
    return pytest.mark.parametrize('path', things, ids=name_of)


@every(ROOMS)
def test_one_header_says_what_a_room_may_call(path):
    assert len(statements(path)) == 1


@every(ROOMS)
def test_room_includes_only_what_it_may_call(path):
    assert [f'{file} includes {name}' for file, name in arrows(path) if name.split('/')[0] not in MAY_CALL[path]] == []


@every(ROOMS)
def test_room_calls_what_it_says(path):
    assert MAY_CALL[path] == {name.split('/')[0] for _file, name in arrows(path)}


@every(HOUSES)
def test_no_arrow_runs_upward(path):
    calls = {room.name: MAY_CALL[room] for room in ROOMS if room.parent == path}
    assert set(TopologicalSorter(calls).static_order()) == set(calls)   # a circle raises CycleError


@every(ROOMS)
def test_headers_of_a_room_make_no_circle(path):
    graph = {f'{path.name}/{header.name}': includes(header) for header in path.glob('*.h')}
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)   # a circle raises CycleError


def symbols_of(file):
    """What an object file defines and what it lacks: two sets."""
    symbols = [line.split()[-2:] for line in subprocess.check_output(['nm', '--extern-only', file], text=True).splitlines()]
    return {name for kind, name in symbols if kind != 'U'}, {name for kind, name in symbols if kind == 'U'}


def test_files_of_the_library_make_no_circle(build):
    """Not only the headers: each file calls functions of files below it."""
    # Sources that are gone may have left an object file.
    objects = [file for file in build.glob('src/libfuse-dmabuf/libfuse-dmabuf.so*.p/*.o') if (HOUSES[1] / file.stem.replace('_', '/', 1)).exists()]
    files = {file.name: symbols_of(file) for file in objects}
    calls = {caller: {called for called in files if called != caller and files[called][0] & lacks} for caller, (_, lacks) in files.items()}
    assert len(calls) > 20 and set(TopologicalSorter(calls).static_order()) == set(calls)   # a circle raises CycleError


@every([room for room in ROOMS if room.parent == HOUSES[0] and room.name != 'transport'])
def test_transport_has_one_header_for_others(path):
    assert {name for _file, name in arrows(path) if name.startswith('transport/')} <= {'transport/transport.h'}


@every(HOUSES)
def test_contributing_has_a_picture(path):
    pictures = re.findall(r'^```\n(.*?)^```$', (CHECKOUT / 'CONTRIBUTING.md').read_text(), re.DOTALL | re.MULTILINE)
    rooms = {room.name for room in ROOMS if room.parent == path}
    assert any(rooms <= set(re.findall(r'\w+', picture)) for picture in pictures)


def test_common_includes_nothing_of_the_programs():
    names = {name for path in sources('src/common') for name in includes(path)}
    assert {name for name in names if not name.startswith('common/')} <= {'check.h'}


def test_lines_are_not_too_wide():
    paths = [path for path in sources('src', 'include', 'tests', 'examples') if str(path.relative_to(CHECKOUT)) not in FOREIGN]
    wide = [f'{path.relative_to(CHECKOUT)}:{number}' for path in paths for number, line in enumerate(path.read_text().splitlines(), 1)
            if len(line.expandtabs(8)) > COLUMNS]
    assert not wide


def test_each_file_says_what_it_is_for():
    silent = [str(path.relative_to(CHECKOUT)) for path in sources('src', 'include')
              if not re.match(r'/\* SPDX-License-Identifier: .*\n/\*', path.read_text())]
    assert not silent
