"""The server's source is a house: each folder is a room, and its main header says which rooms below it may call ("May call:").

C files are looked at as text: what they include, and how wide their lines are.
"""
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SERVER = CHECKOUT / 'src/mount.fuse-dmabuf'
ROOMS = sorted(path.name for path in SERVER.iterdir() if path.name != 'test' and list(path.glob('*.c')))
COLUMNS = 100
# Not ours to change: as it was published, to see that programs of others run.
FOREIGN = {'tests/vm/abi-client.c'}


def sources(*folders):
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob('*.[ch]'))]


def statements(room):
    """What the headers of a room say that it may call: a list of sets, one for each header that says so."""
    found = [re.search(r'^ \* May call: ([a-z, ]+)\.$', path.read_text(), re.MULTILINE) for path in sorted((SERVER / room).glob('*.h'))]
    return [set(match[1].split(', ')) - {'nothing'} for match in found if match]


MAY_CALL = {room: set().union(*statements(room)) for room in ROOMS}


def arrows(room):
    """(file, included header) for all that a room includes of others, common/ aside. Tests of a room belong to it."""
    for path in sources(SERVER / room):
        for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE):
            other = name.split('/')[0]
            if name != 'check.h' and other not in {room, 'common'}:
                yield path.relative_to(SERVER), name


@pytest.mark.parametrize('room', ROOMS)
def test_one_header_says_what_a_room_may_call(room):
    assert len(statements(room)) == 1


@pytest.mark.parametrize('room', ROOMS)
def test_room_includes_only_what_it_may_call(room):
    wrong = [f'{path} includes {name}' for path, name in arrows(room) if name.split('/')[0] not in MAY_CALL[room]]
    assert not wrong


@pytest.mark.parametrize('room', ROOMS)
def test_room_calls_what_it_says(room):
    assert MAY_CALL[room] == {name.split('/')[0] for _path, name in arrows(room)}


def test_no_arrow_runs_upward():
    assert set(TopologicalSorter(MAY_CALL).static_order()) == set(ROOMS)   # a circle raises CycleError


@pytest.mark.parametrize('room', [room for room in ROOMS if room != 'transport'])
def test_transport_has_one_header_for_others(room):
    assert {name for _path, name in arrows(room) if name.startswith('transport/')} <= {'transport/transport.h'}


def test_contributing_shows_each_room():
    picture = (CHECKOUT / 'CONTRIBUTING.md').read_text()
    assert [room for room in ROOMS if not re.search(rf'\b{room}\b', picture)] == []


def test_common_includes_nothing_of_the_programs():
    names = {name for path in sources('src/common') for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)}
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
