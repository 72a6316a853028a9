"""Which parts of a value give it away, and are therefore looked for."""

SLICE_BYTES = 12
"""A slice of a value this long is masked wherever it stands."""

_FEWEST_DISTINCT = 5
_LONGEST_PIECE = 64
_NO_LETTERS = bytes(byte for byte in range(256) if not chr(byte).isalpha())
_NO_DIGITS = bytes(byte for byte in range(256) if not chr(byte).isdigit())


def public_length(value: bytes, prefix: bytes) -> int:
    """How many bytes at the front tell nothing, because many values share them.

    Args:
        prefix: Declared to be public, such as ``sk-``.
    """
    if value.startswith(b"eyJ") and value.count(b".") >= 2:
        # The first part of a JSON web token names algorithms.
        return value.index(b".") + 1
    if prefix and value.startswith(prefix):
        return len(prefix)
    return 0


def telling(part: bytes) -> bool:
    """Whether a part is unlikely to stand in a text by chance: not a run of one character, not plain words.

    Words are letters of one case with marks between, such as ``-production-``.
    """
    if len(set(part)) < _FEWEST_DISTINCT:
        return False
    if part.translate(None, _NO_DIGITS):
        return True
    body = part.translate(None, _NO_LETTERS)[1:]  # a capital at the front is a word still
    return not (body.islower() or body.isupper())


def slice_starts(value: bytes, public: int) -> list[int]:
    """Offsets at which a slice of `SLICE_BYTES` gives the value away.

    Slices of public bytes or of plain words are left out, unless the value has no other ones.
    """
    ends = len(value) - SLICE_BYTES + 1
    own = [at for at in range(ends) if at + SLICE_BYTES // 3 >= public]
    own = [at for at in own if len(set(value[at : at + SLICE_BYTES])) >= _FEWEST_DISTINCT]
    return [at for at in own if telling(value[at : at + SLICE_BYTES])] or own


def encoded_slice_starts(value: bytes, core: bytes, public: int) -> list[int]:
    """The same for base64 of a value: offsets in it whose slices stand for bytes that give the value away.

    Args:
        core: What base64 has of the value, from one of its first bytes on.
    """
    starts: list[int] = []
    for at in range(len(core) - SLICE_BYTES + 1):
        begin, end = at * 3 // 4, (at + SLICE_BYTES) * 3 // 4
        if begin + SLICE_BYTES // 4 >= public and telling(value[begin:end]):
            starts.append(at)
    return starts


def cut(value: bytes, public: int, piece_bytes: int) -> list[tuple[int, int]]:
    """Cut a value into neighbouring pieces, each of which gives it away.

    Args:
        piece_bytes: What a piece has at least, if the value does; not below `SLICE_BYTES`.

    Returns:
        Begin and end of each. The public front is part of the first one; a piece of plain words goes together
        with what follows it.
    """
    if len(value) - public < SLICE_BYTES:
        public = 0
    count = max(1, (len(value) - public) // piece_bytes)
    bounds = [public + (len(value) - public) * at // count for at in range(count + 1)]
    pieces: list[tuple[int, int]] = []
    begin = max(0, public - _LONGEST_PIECE)
    bounds = [bounds[0], *(_character_start(value, bound) for bound in bounds[1:-1]), bounds[-1]]
    for end in bounds[1:]:
        last = end == len(value)
        if not last and not telling(value[max(begin, public) : end]) and end - begin < _LONGEST_PIECE:
            continue
        if last and pieces and not telling(value[begin:end]):
            begin = pieces.pop()[0]
        pieces.append((begin, end))
        begin = end
    return pieces


def _character_start(value: bytes, at: int) -> int:
    """Not within a character of several bytes in UTF-8, since escapes are of characters."""
    for back in range(4):
        if value[at - back] & 0xC0 != 0x80:
            return at - back
    return at
