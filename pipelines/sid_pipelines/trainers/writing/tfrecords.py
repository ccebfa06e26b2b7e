"""TFRecords without TensorFlow: tf.train.Example by hand, and each record framed with its checksums.

A record is a length, the length's checksum, the bytes, their checksum; the checksum is CRC-32C, turned and
shifted so that one of checksums differs from one of bytes. CRC-32C goes byte by byte, so it is taken of many
records at once, place by place. Sources: tensorflow/core/lib/io/record_writer.cc, tsl/lib/hash/crc32c.h,
tensorflow/core/example/feature.proto.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
RECORDS = 8192  # whose checksums are taken at once
POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, lowest bit first
ONES = np.uint32(0xFFFFFFFF)


def _table() -> U32:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ POLYNOMIAL, table >> 1)
    return table


TABLE = _table()


def varint(number: int) -> bytes:
    """Give a number of 0 or more as protobuf writes it: seven bits a byte, lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def int64_list(varints: bytes) -> bytes:
    """Give a Feature of whole numbers. varints: of each, one after the other."""
    return _field(3, _field(1, varints))


def bytes_list(value: bytes) -> bytes:
    """Give a Feature of one string of bytes."""
    return _field(1, _field(1, value))


def example(**features: bytes) -> bytes:
    """Give a tf.train.Example of named Features, in their order."""
    pairs = (_field(1, name.encode()) + _field(2, feature) for name, feature in features.items())
    return _field(1, b"".join(_field(1, pair) for pair in pairs))


def framed(records: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each record as it stands in a TFRecord file."""
    rest = iter(records)
    while batch := list(islice(rest, RECORDS)):
        lengths = [len(record).to_bytes(8, "little") for record in batch]
        sums = zip(masked_crc32c(lengths), masked_crc32c(batch), strict=True)
        for length, record, (of_length, of_record) in zip(lengths, batch, sums, strict=True):
            yield length + of_length + record + of_record


def masked_crc32c(records: Sequence[bytes]) -> list[bytes]:
    """Give the masked CRC-32C of each record: 4 bytes, little-endian."""
    crc = crc32c(records)
    masked = ((crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)).astype("<u4").tobytes()
    return [masked[place : place + 4] for place in range(0, len(masked), 4)]


def crc32c(records: Sequence[bytes]) -> U32:
    """Give the CRC-32C of each record: (n,) uint32.

    >>> hex(crc32c([b"123456789"])[0])
    '0xe3069283'
    """
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    flat = np.frombuffer(b"".join(records), dtype=np.uint8)
    longest_first = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[longest_first]
    reaching = np.searchsorted(-lengths[longest_first], -np.arange(lengths.max(initial=0)))
    crc = np.full(len(records), ONES)
    for place, n in enumerate(reaching.tolist()):  # the first n records have a byte there
        crc[:n] = TABLE[(crc[:n] ^ flat[starts[:n] + place]) & 255] ^ crc[:n] >> 8
    out = np.empty_like(crc)
    out[longest_first] = crc ^ ONES
    return out


def _field(number: int, payload: bytes) -> bytes:
    """Give a field of a message that has a length: bytes, text, a message, packed numbers."""
    return bytes([number << 3 | 2]) + varint(len(payload)) + payload
