"""A SentencePiece model without the paths of its training files, so that equal models have equal bytes.

The model is a protocol buffer that keeps how it was trained. Its own Python classes need another version of
protobuf than the rest of what we install; three fields can be left out without them.
"""

from collections.abc import Iterator

TRAINER_SPEC = 2  # of ModelProto
INPUT, MODEL_PREFIX, SEEDS_FILE = 1, 2, 54  # of TrainerSpec
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # how a field is written


def without_paths(model: bytes) -> bytes:
    """Give the model's bytes without the paths in its trainer's settings."""
    kept = []
    for number, start, value, end in _fields(model):
        if number == TRAINER_SPEC:
            spec = model[value:end]
            left = [
                spec[a:b] for own, a, _, b in _fields(spec) if own not in (INPUT, MODEL_PREFIX, SEEDS_FILE)
            ]
            kept += [_varint(TRAINER_SPEC << 3 | BYTES), _varint(sum(map(len, left))), *left]
        else:
            kept.append(model[start:end])
    return b"".join(kept)


def _fields(message: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Give each field's number, and where it starts, its value starts, and it ends."""
    at = 0
    while at < len(message):
        tag, value = _read(message, at)
        end = value
        if tag & 7 == VARINT:
            _, end = _read(message, value)
        elif tag & 7 == BYTES:
            length, value = _read(message, value)
            end = value + length
        else:
            end += {EIGHT: 8, FOUR: 4}[tag & 7]
        yield tag >> 3, at, value, end
        at = end


def _read(message: bytes, at: int) -> tuple[int, int]:
    """Give the number that begins at a place, seven bits a byte, the lowest first; and where it ends."""
    number = shift = 0
    while True:
        number |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            return number, at


def _varint(number: int) -> bytes:
    """Write a number as `_read` reads it.

    >>> _read(_varint(300), 0)
    (300, 2)
    """
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
