"""The manual pages: those of section 3 describe the public header and nothing else, and all are of this version, installed and without dead links."""
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HEADER = CHECKOUT / 'include/fuse-dmabuf.h'
PAGES = sorted((CHECKOUT / 'man').iterdir())
LIBRARY_PAGES = [path for path in PAGES if path.suffix == '.3']
OURS = re.compile(r'(fuse-dmabuf|fdmabuf|mount\.fuse-dmabuf)')


def each(pages):
    return pytest.mark.parametrize('page', pages, ids=lambda path: path.name)


def plain(text):
    """The text of roff without its escapes."""
    return text.replace(r'\-', '-').replace(r'\e', '\\')


def sections(page):
    """{title: text}, in the order of the page."""
    parts = re.split(r'^\.SH (.*)\n', page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def code(text):
    """The parts of a section that are printed as they are."""
    return [plain(block) for block in re.findall(r'^\.nf\n(.*?)^\.fi$', text, re.DOTALL | re.MULTILINE)]


def declarations(text):
    """What a header declares, each on one line: functions, structs with members, enums, typedefs and macros with a value."""
    text = re.sub(r'/\*.*?\*/', '', text, flags=re.DOTALL).replace('FDMABUF_API ', '')
    text = re.sub(r'^#ifdef __cplusplus\n.*?^#endif', '', text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r'^#define (FDMABUF_\w+[ \t]+\S.*)$', text, re.MULTILINE)
    text = re.sub(r'^#.*$', '', text, flags=re.MULTILINE)
    found += re.findall(r'^(?:struct|enum) \w+\s*\{[^}]*\};', text, re.MULTILINE)
    found += re.findall(r'^(?!struct \w+;)[^\s{};#][^{};]*\([^{};]*\);', text, re.MULTILINE)
    return [re.sub(r'\( ', '(', re.sub(r'\s+', ' ', one)).strip() for one in found]


def functions(text):
    return [match[1] for one in declarations(text) if not one.startswith('typedef') and (match := re.search(r'\b(fdmabuf_\w+)\(', one))]


def synopsis(page):
    return '\n'.join(code(sections(page)['SYNOPSIS']))


def test_each_declaration_is_in_one_page():
    in_pages = Counter(one for page in LIBRARY_PAGES for one in declarations(synopsis(page)))
    assert in_pages == Counter(declarations(HEADER.read_text()))


def test_each_function_is_in_one_page():
    names = re.findall(r'\b(fdmabuf_\w+)\(', re.sub(r'/\*.*?\*/|typedef[^;]*;', '', HEADER.read_text(), flags=re.DOTALL))
    assert sorted(name for page in LIBRARY_PAGES for name in functions(synopsis(page))) == sorted(names)


@each(LIBRARY_PAGES)
def test_page_names_its_functions(page):
    names = re.sub(r'\s+', ' ', sections(page)['NAME']).split(' \\- ')[0].split(', ')
    assert names[0] == page.stem and sorted(names[1:]) == sorted(functions(synopsis(page)))


@each(LIBRARY_PAGES)
def test_page_explains_each_name(page):
    """Functions, members, constants: each is in the text, not only in the synopsis."""
    text = plain(''.join(text for title, text in sections(page).items() if title not in {'NAME', 'SYNOPSIS'}))
    members = re.findall(r'(\w+)[;,](?= )', ' '.join(one for one in declarations(synopsis(page)) if one.startswith('struct')))
    constants = re.findall(r'\bFDMABUF_(?!VERSION)\w+', synopsis(page))
    assert [name for name in {*functions(synopsis(page)), *members, *constants} if not re.search(rf'\b{name}\b', text)] == []


@each(LIBRARY_PAGES)
def test_page_has_the_usual_sections(page):
    usual = ['NAME', 'LIBRARY', 'SYNOPSIS', 'EXAMPLES', 'DESCRIPTION', 'RETURN VALUE', 'ERRORS', 'NOTES', 'SEE ALSO']
    titles = list(sections(page))
    assert titles == [title for title in usual if title in titles] and len(titles) >= len(usual) - 1


# What the examples leave out.
AROUND = """
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include <fuse-dmabuf.h>
extern int interrupted;
void do_something_else(void);
void take_transfer(struct fdmabuf_transfer *transfer);
void take_message(int socket);
%s
void example(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer, struct fdmabuf_queue *queue, struct fdmabuf_transfer *transfer,
             struct fdmabuf_range *ranges, size_t count, uint64_t size, int dmabuf_fd, int socket, int running);
void example(struct fdmabuf_file *file, struct fdmabuf_buffer *buffer, struct fdmabuf_queue *queue, struct fdmabuf_transfer *transfer,
             struct fdmabuf_range *ranges, size_t count, uint64_t size, int dmabuf_fd, int socket, int running)
{
%s
}
"""


def examples():
    """(where, code) of the manual, of the header, and of the README."""
    for page in LIBRARY_PAGES:
        for number, block in enumerate(code(sections(page)['EXAMPLES']), 1):
            yield pytest.param(block, id=f'{page.name}-{number}')
    first = re.search(r'^ \* libfuse-dmabuf:.*?^ \* Conventions', HEADER.read_text(), re.DOTALL | re.MULTILINE)[0]
    yield pytest.param('\n'.join(re.findall(r'^ \*\t(.*)$', first, re.MULTILINE)), id=HEADER.name)
    for number, block in enumerate(re.findall(r'^```c\n(.*?)^```$', (CHECKOUT / 'README.md').read_text(), re.DOTALL | re.MULTILINE), 1):
        yield pytest.param(block, id=f'README-{number}')


@pytest.mark.parametrize('text', examples())
def test_example_compiles(text):
    is_function = re.search(r'^\{$', text, re.MULTILINE)
    program = AROUND % ((text, '') if is_function else ('', text))
    compiler = ['gcc', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-Wno-unused', '-fsyntax-only', f'-I{HEADER.parent}', '-x', 'c', '-']
    result = subprocess.run(compiler, input=program, text=True, stderr=subprocess.PIPE)
    assert result.returncode == 0, result.stderr


@each(PAGES)
def test_page_begins_with_its_license_and_title(page):
    version = re.search(r"version: '([0-9.]+)'", (CHECKOUT / 'meson.build').read_text())[1]
    name, section = page.stem.upper(), page.suffix[1:]
    man = rf'\.TH {name} {section} "\d{{4}}-\d\d-\d\d" "fuse-dmabuf {version}" ".*"\n'
    mdoc = rf'\.Dd \w+ \d+, \d{{4}}\n\.Dt {name} {section}\n\.Os fuse-dmabuf\n'
    assert re.match(rf'\.\\" SPDX-License-Identifier: GPL-2\.0-or-later\n({man}|{mdoc})', page.read_text())


@each(PAGES)
def test_page_refers_to_pages_that_exist(page):
    exist = {path.name for path in PAGES} | {f'{name}.3' for path in LIBRARY_PAGES for name in functions(synopsis(path))}
    named = re.findall(r'^\.(?:BR|Xr) (\S+) \(?(\d)\b', page.read_text(), re.MULTILINE)
    assert named
    assert {f'{plain(name)}.{section}' for name, section in named if OURS.match(plain(name))} - exist == set()


def test_pages_are_installed_and_functions_lead_to_them(build, tmp_path):
    subprocess.run(['meson', 'install', '-C', build, '--no-rebuild', '--quiet', '--destdir', tmp_path], check=True)
    manual = tmp_path / 'usr/share/man'
    assert {path.name for path in manual.rglob('*.*') if path.is_file() and not path.is_symlink()} == {path.name for path in PAGES}
    for page in LIBRARY_PAGES:
        for name in functions(synopsis(page)):
            assert (manual / f'man3/{name}.3').resolve() == manual / 'man3' / page.name
