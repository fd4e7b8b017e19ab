"""Damaged and hostile versions of a file, the same for the same seed."""

import random
from collections.abc import Iterator

INSERTED = (b"\0", b"\xff" * 9, b"9" * 400, b"\n", b'"', b"-", b"[" * 99)


def mutations(content: bytes, n: int = 300, *, seed: int = 0, first: int = 0) -> Iterator[bytes]:
    """Yield `n` versions of the content: bytes changed, cut out, repeated or put in; from byte `first` on."""
    generator = random.Random(seed)
    for _ in range(n):
        changed = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            place = generator.randrange(first, max(first + 1, len(changed)))
            length = generator.randint(1, 1 + len(changed) // 8)
            match generator.randrange(4):
                case 0:
                    changed[place : place + 1] = bytes([generator.randrange(256)])
                case 1:
                    del changed[place : place + length]
                case 2:
                    changed[place:place] = changed[place : place + length]
                case _:
                    changed[place:place] = generator.choice(
                        [b"\0", b"\xff" * 9, b"9" * 400, b"\n", b'"', b"-", b"[" * 99]
                    )
        yield bytes(changed)
