"""Safetensors files at random, for test_header_corpus.py: valid ones, and ones changed as a careless writer or an attacker would."""
import struct

# dtype: bits
DTYPES = {'BOOL': 8, 'F4': 4, 'F6_E2M3': 6, 'F6_E3M2': 6, 'U8': 8, 'I8': 8, 'F8_E5M2': 8, 'F8_E4M3': 8, 'F8_E8M0': 8, 'F8_E4M3FNUZ': 8,
          'F8_E5M2FNUZ': 8, 'I16': 16, 'U16': 16, 'F16': 16, 'BF16': 16, 'I32': 32, 'U32': 32, 'F32': 32, 'C64': 64, 'F64': 64, 'I64': 64,
          'U64': 64}


class Raw(bytes):
    """Text of a value, which is written as it is."""


class Object(list):
    """Members of an object: [key, value] each, so that a key can occur twice."""

    def find(self, key):
        return next((member for member in self if member[0] == key), None)


class Writer:
    """Writes JSON, with spaces and escapes at random where JSON allows them."""

    def __init__(self, source):
        self.source = source
        self.spaces = source.choice([0, 0, 0.2])
        self.escapes = source.choice([0, 0, 0.1, 1])

    def space(self):
        return self.source.choice([b' ', b'\n', b'\t', b'\r', b'  \r\n']) if self.source.random() < self.spaces else b''

    def character(self, character):
        short = {'"': '\\"', '\\': '\\\\', '/': '\\/', '\b': '\\b', '\f': '\\f', '\n': '\\n', '\r': '\\r', '\t': '\\t'}
        must = character in '"\\' or character < ' ' or '\ud800' <= character <= '\udfff'
        if not must and self.source.random() >= self.escapes:
            return character
        if character in short and self.source.random() < 0.7:
            return short[character]
        units = struct.unpack('>%dH' % (1 + (character > '\uffff')), character.encode('utf-16-be', 'surrogatepass'))
        return ''.join(self.source.choice(['\\u%04x', '\\u%04X']) % unit for unit in units)

    def write(self, value):
        if isinstance(value, Raw):
            return bytes(value)
        if isinstance(value, str):
            return ('"' + ''.join(map(self.character, value)) + '"').encode()
        if isinstance(value, int):
            return b'%d' % value
        if isinstance(value, Object):
            items, ends = [self.write(key) + self.space() + b':' + self.space() + self.write(item) for key, item in value], b'{}'
        else:
            items, ends = [self.write(item) for item in value], b'[]'
        return ends[:1] + self.space() + (self.space() + b',' + self.space()).join(items) + self.space() + ends[1:]


class Draft:
    """A file that can still be changed. It begins as a valid one."""

    def __init__(self, source):
        self.source, self.writer = source, Writer(source)
        self.before, self.after = b'', b' ' * source.choice([0, 0, 1, 7])
        self.root = None     # instead of the members
        self.length = None   # instead of the true length of the header
        self.members, position = Object(), 0
        names = source.sample(['a', 'b', 'model.layers.0.weight', '', 'é', '重み', '\U0001f600', '"\\/\t\n', '\x7f\x9b', '\uffff', '_', 'x' * 300],
                              source.choice([0, 1, 1, 2, 3, 4]))
        dtypes = [dtype for dtype in DTYPES if DTYPES[dtype] >= 8] if source.random() < 0.8 else list(DTYPES)
        for name in names:
            dtype = source.choice(dtypes)
            shape = [source.choice([0, 1, 1, 2, 3, 8]) for _ in range(source.randrange(5))]
            bits = DTYPES[dtype]
            for dimension in shape:
                bits *= dimension
            if bits % 8:
                shape, bits = shape + [4], 4 * bits
            entry = Object([['dtype', dtype], ['shape', shape], ['data_offsets', [position, position + bits // 8]]])
            source.shuffle(entry)
            self.members.append([name, entry])
            position += bits // 8
        self.tensors = list(self.members)
        self.data = source.randbytes(position)
        if source.random() < 0.3:
            self.add('__metadata__', Object([['format', 'pt'], ['é', '\0\n']]))
        source.shuffle(self.members)

    def add(self, key, value):
        self.members.insert(self.source.randrange(len(self.members) + 1), [key, value])

    def write(self):
        text = self.before + self.writer.write(self.members if self.root is None else self.root) + self.after
        length = len(text) if self.length is None else self.length(len(text))
        return struct.pack('<Q', length % 2**64) + text + self.data


VALID = [Raw(text) for text in (
    b'null', b'true', b'false', b'0', b'1', b'""', b'"x"', b'[]', b'{}', b'[0]', b'[0,0]', b'[[]]', b'{"":{}}', b'{"x":1,"x":2}',
    b'"\\u0000"', b'"\\ud83d\\ude00"', b'"\x7f"', b'"\xef\xbf\xbf"', b'"\\/"')]
INVALID = [Raw(text) for text in (
    b'nul', b'True', b'NaN', b'-Infinity', b'[1,]', b'{"x":1,}', b'{x:1}', b"'x'", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud800\\u0041"',
    b'"\\ud800x"', b'"\\uD8"', b'"\\x41"', b'"\\u{41}"', b'"\x00"', b'"\x1f"', b'"\n"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"', b'"\xf0\x9f\x98"', b'"', b'/**/0', b'')]

NUMBERS = [Raw(text) for text in (
    b'0', b'1', b'4', b'-0', b'-1', b'0.0', b'4.0', b'-0.0', b'4e0', b'4E+0', b'40e-1', b'04', b'00', b'+4', b'.4', b'4.', b'4e', b'0x4',
    b'1_0', b'4 4', b'"4"', b'2147483648', b'4294967296', b'9223372036854775807', b'9223372036854775808', b'18446744073709551615',
    b'18446744073709551616', b'-9223372036854775808', b'-9223372036854775809', b'1e308', b'1.7976931348623157e308',
    b'1.7976931348623159e308', b'-1.8e308', b'1e309', b'1e400', b'-1e400', b'1e-400', b'0e999999999999', b'1e99999999999999999999',
    b'1e-99999999999999999999', b'0.' + b'4' * 2000, b'9' * 308, b'9' * 309, b'9' * 310, b'-' + b'9' * 400, b'1' + b'0' * 400 + b'e-400',
    b'0.' + b'0' * 400 + b'1e400')]


def value(source):
    """JSON that is valid more often than not, because a refused file shows nothing else."""
    return source.choice(VALID if source.random() < 0.7 else INVALID)


# name: function that changes a draft
CHANGES = {}


def change(function):
    CHANGES[function.__name__] = function
    return function


def change_of_tensor(function):
    """Changes one entry, if the file has one that is still an object: function(draft, source, entry)."""
    def apply(draft, source):
        entries = [entry for _, entry in draft.tensors if isinstance(entry, Object)]
        if entries:
            function(draft, source, source.choice(entries))
    CHANGES[function.__name__] = apply
    return function


def nested(source, levels):
    begin, end = source.choice([(b'[', b']'), (b'{"x":', b'}'), (b'[{"x":', b'}]')])
    levels = levels // 2 if begin == b'[{"x":' else levels
    return Raw(begin * levels + b'0' + end * levels)


@change
def nothing(draft, source):
    pass


@change
def metadata(draft, source):
    draft.add('__metadata__', source.choice([
        Raw(b'null'), Object(), Object([['x', '\0é']]), Object([['x', 'y'], ['x', 'z']]), Object([['x', value(source)]]), Object([[value(source), 'y']]),
        value(source), nested(source, source.randrange(4))]))


@change
def key_like_metadata(draft, source):
    draft.add(source.choice(['__metadata__\0', '__METADATA__', '_metadata_', 'metadata', Raw(b'"\\u005f_metadata__"'), Raw(b'"__meta\\u0064ata__"')]),
              source.choice([Raw(b'null'), Object([['x', 'y']])]))


@change
def name_twice(draft, source):
    if draft.tensors:
        name, entry = source.choice(draft.tensors)
        draft.add(name, source.choice([entry, Object(entry), Object(entry[:-1])] if isinstance(entry, Object) else [entry]))


@change
def name(draft, source):
    if draft.tensors:
        member = source.choice(draft.tensors)
        member[0] = source.choice([member[0] + '\0', '\0', '\0x', 'a\0b', '\ud800', '\udfff', 'x\udc00y', value(source), value(source)])


@change
def no_object_for_an_entry(draft, source):
    members = [member for member in draft.tensors if isinstance(member[1], Object)]
    if members:
        member = source.choice(members)
        values = [value for _, value in sorted(member[1], key=lambda pair: ['dtype', 'shape', 'data_offsets'].index(pair[0])
                                               if pair[0] in ('dtype', 'shape', 'data_offsets') else 3)]
        member[1] = source.choice([values, values, values[:2], values + [0], value(source)])


@change_of_tensor
def member_missing(draft, source, entry):
    if entry:
        entry.pop(source.randrange(len(entry)))


@change_of_tensor
def member_twice(draft, source, entry):
    if entry:
        entry.insert(source.randrange(len(entry) + 1), source.choice([list(source.choice(entry)), [source.choice(entry)[0], value(source)]]))


@change_of_tensor
def unknown_member(draft, source, entry):
    key = source.choice(['x', '', '\0', 'dtype\0', 'Dtype', 'shape ', '__metadata__', value(source)])
    for _ in range(source.choice([1, 1, 2])):
        entry.insert(source.randrange(len(entry) + 1), [key, source.choice([value(source), source.choice(NUMBERS)])])


@change_of_tensor
def deep_member(draft, source, entry):
    key = source.choice(['x', 'x', 'x', 'shape', 'data_offsets'])
    entry.insert(source.randrange(len(entry) + 1), [key, nested(source, source.randrange(121, 131))])


@change_of_tensor
def value_of_member(draft, source, entry):
    if entry:
        source.choice(entry)[1] = value(source)


@change_of_tensor
def number(draft, source, entry):
    numbers = [member[1] for member in entry if isinstance(member[1], list) and not isinstance(member[1], Object) and member[1]]
    if numbers:
        array = source.choice(numbers)
        array[source.randrange(len(array))] = source.choice(NUMBERS)


@change_of_tensor
def dtype(draft, source, entry):
    member = entry.find('dtype')
    if member and isinstance(member[1], str):
        old, null = member[1], Raw(b'null')
        member[1] = source.choice([
            source.choice(list(DTYPES)), 'U7', '', old.lower(), old + '\0', old + ' ', null, [old], 8, Object([[old, null]]), Object([[old, null]]),
            Object([[old, Object()]]), Object([[old, null], ['x', 0]])])


@change_of_tensor
def offsets(draft, source, entry):
    member = entry.find('data_offsets')
    if member and isinstance(member[1], list) and len(member[1]) == 2:
        begin, end = member[1]
        if isinstance(begin, int) and isinstance(end, int):
            step = source.choice([-1, 1, 2])
            member[1] = source.choice([
                [begin + step, end], [begin, end + step], [begin + step, end + step], [end, begin], [begin], [begin, end, end], [end, end], [0, end],
                [begin, 2**64 - 1], [2**64 - 1, 2**64 - 1], [2**64 - 8, end]])


@change_of_tensor
def shape(draft, source, entry):
    member = entry.find('shape')
    if member and isinstance(member[1], list):
        extra = source.choice([[1] * 70, [0], [2], [2**32, 2**32], [2**62], [2**64 - 1]])
        member[1] = source.choice([member[1] + extra, extra + member[1], [0] + member[1] + extra, extra + member[1] + [0], member[1][1:]])


@change
def tensor_without_data(draft, source):
    shape = source.choice([[0], [0, 5], [0, 2**32, 2**32], [2**32, 2**32, 0], [0, 2**64 - 1], [2**62, 0]])
    offset = source.randrange(len(draft.data) + 2)
    draft.add(source.choice(['empty', 'none']),
              Object([['dtype', source.choice(list(DTYPES))], ['shape', shape], ['data_offsets', [offset, offset]]]))


@change
def tensor_of_other_data(draft, source):
    """Overlaps another, or leaves a gap, or is right if it begins at the end."""
    begin = source.choice([0, len(draft.data), source.randrange(len(draft.data) + 3)])
    size = source.randrange(4)
    draft.add('other', Object([['dtype', 'U8'], ['shape', [size]], ['data_offsets', [begin, begin + size]]]))
    draft.data += source.randbytes(source.choice([0, size, size]))


@change
def order(draft, source):
    source.shuffle(draft.members)
    for _, entry in draft.tensors:
        if isinstance(entry, Object):
            source.shuffle(entry)


@change
def data(draft, source):
    draft.data = source.choice([draft.data[:-1], draft.data[1:], draft.data + b'\0', b'', draft.data * 2])


@change
def around(draft, source):
    spaces = [b'', b' ', b'\n', b'\r\n', b'\t', b' ' * 40]
    others = [b'\xef\xbb\xbf', b'\xff\xfe', b'\0', b'\0\0\0\0', b'\v', b'\f', b'\xc2\xa0', b'\xe2\x80\xa8',
              b'//\n', b'/**/', b'[', b'{', b'}', b',', b'{}', b'x', b'\xff']
    draft.before, draft.after = source.choice(spaces), source.choice(spaces)
    if source.random() < 0.3:
        draft.before += source.choice(others)
    if source.random() < 0.3:
        draft.after += source.choice(others)


@change
def root(draft, source):
    texts = [b'', b' ', b'{', b'}', b'{}', b'{,}', b'{"a"}', b'{"a":}']
    draft.root = source.choice([Raw(source.choice(texts)), [draft.members], value(source)])


@change
def length(draft, source):
    number = source.choice([0, 1, 8, 100_000_000, 100_000_001, 2**31, 2**32, 2**63, 2**64 - 8, 2**64 - 1])
    step = source.choice([-2, -1, 1, 2, 8])
    draft.length = source.choice([lambda length: number, lambda length: length + step])


def damaged(file, source):
    """Bytes are changed, removed or put in somewhere, mostly in the header."""
    file = bytearray(file)
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(8, max(9, len(file)))
        piece = bytes([source.choice(b'{}[]",:\\0123456789-.eE \n\x00\xff\x80unltrfasdyphe_')])
        keep = source.choice([at, at + 1])   # puts the piece in, or in place of a byte
        file = file[:at] + source.choice([piece, piece, b'']) + file[keep:]
    end = file.rfind(b'}') + 1
    if end > 8 and source.random() < 0.9:   # the length is right again, if the data has no brace
        file[:8] = struct.pack('<Q', end - 8)
    return bytes(file)


def make(source):
    """(names of the changes, file)"""
    draft = Draft(source)
    names = source.sample(list(CHANGES), source.choice([1, 1, 1, 2, 3]))
    for name in names:
        CHANGES[name](draft, source)
    file = draft.write()
    if source.random() < 0.2:
        names, file = names + ['damaged'], damaged(file, source)
    return names, file
