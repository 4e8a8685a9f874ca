"""Frames of the socket protocol with something wrong in their JSON or in their bytes, drawn from a seed. Pure."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from rawpeer import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

LIMIT = 16 * 1024
"""Bytes of a message that the gateway takes."""

# What may stand in the place of any value: as JSON text, for not all of it can be said by a Python value.
_LITERALS = (
    "null", "true", "false", "0", "-0", "-1", "1", "1.0", "0.1", "1e3", "1e400", "-1e400", "1e-400", "NaN", "Infinity",
    "9007199254740991", "9007199254740992", "18446744073709551616", "-9223372036854775809", '""', '" "', '"\\u0000"',
    '"\\ud800"', '"\\udc00\\ud800"', '"\\uD83D\\uDE00"', '"a\\nb\\u001b[31m"', "[]", "{}", "[[]]", '{"a":{}}', "[null]",
    '"__proto__"', '"\\u202e"', "[1,2,3]", '{"type":"ack","seq":1}', "01", "+1", ".5", "'x'", "\x00",
)  # fmt: skip
_KINDS = ("ack", "read", "token", "ping", "hello", "error", "notification", "close", "", "ACK", "ack ", "\\u0061ck")
_NAMES = (
    "type",
    "seq",
    "ids",
    "up_to",
    "token",
    "ref",
    "epoch",
    "after",
    "",
    "\\u0000",
    "__class__",
    "toString",
    "x" * 300,
)


class Mutator:
    """``tokens``: credentials that may stand in a ``token`` frame, good and bad ones."""

    def __init__(self, rng: random.Random, tokens: Sequence[str]) -> None:
        self._rng, self._tokens = rng, tokens

    # -- as a client might say it ----------------------------------------------------------------------------------

    def members(self) -> dict[str, str]:
        """A frame that counts: the JSON text of each member."""
        rng = self._rng
        drawn: dict[str, Any] = rng.choice(
            (
                {"type": "ack", "seq": rng.randrange(4)},
                {"type": "read", "up_to": rng.randrange(3)},
                {"type": "read", "ids": [f"id-{number}" for number in range(rng.randint(1, 100))]},
                {"type": "token", "token": rng.choice(self._tokens)},
                {"type": "ping"},
            )
        )
        if rng.random() < 0.5:
            drawn["ref"] = rng.choice(("r", 7, "ü" * rng.randrange(1, 140), "x" * rng.randrange(1, 300)))
        return {name: json.dumps(value, ensure_ascii=rng.random() < 0.5) for name, value in drawn.items()}

    def sane(self) -> bytes:
        """One frame, or one message in pieces, or a control frame."""
        rng, text = self._rng, self._object(self.members()).encode()
        cut = rng.randrange(len(text) + 1)
        return rng.choice(
            (
                frame(TEXT, text),
                frame(TEXT, text),
                frame(TEXT, text[:cut], fin=False) + frame(PING, b"between") + frame(CONT, text[cut:]),
                frame(TEXT, text[:cut], fin=False) + frame(CONT, b"", fin=False) * 3 + frame(CONT, text[cut:]),
                frame(PING, rng.randbytes(rng.randrange(126))),
                frame(PONG, rng.randbytes(rng.randrange(126))),
                frame(CLOSE, struct.pack("!H", rng.choice((1000, 1001, 3000, 4999))) + b"bye"),
                frame(CLOSE),
                frame(BINARY, text),
                frame(TEXT, text + b" " * rng.randrange(LIMIT + 100)),
            )
        )

    # -- wrong in its JSON: the socket may stay --------------------------------------------------------------------

    def text(self) -> bytes:
        """The payload of a text frame that is no longer what a client would say; hardly ever invalid UTF-8."""
        rng, members = self._rng, self.members()
        for _ in range(rng.randint(1, 3)):
            rng.choice((self._value, self._value, self._drop, self._surplus, self._kind, self._huge, self._deep))(
                members
            )
        text = self._object(members)
        twisted = rng.random()
        if twisted < 0.05:
            text = rng.choice(("[", '"', "", "\ufeff", "//", " " * 100)) + text
        elif twisted < 0.1:
            text = text[: rng.randrange(len(text) + 1)]
        elif twisted < 0.14:
            text += rng.choice(("]", "}", ",", text, "\x00", "garbage", "/* */"))
        elif twisted < 0.17:
            text = f"[{text}]"
        elif twisted < 0.2:
            return text.encode("utf-16")[:LIMIT]
        return text.encode("utf-8", "replace")[:LIMIT]

    def _object(self, members: dict[str, str]) -> str:
        pairs = [f'"{name}": {value}' for name, value in members.items()]
        if self._rng.random() < 0.1:
            pairs.append(self._rng.choice(pairs or [""]))  # a member twice
        return "{" + ", ".join(pairs) + "}"

    def _value(self, members: dict[str, str]) -> None:
        if members:
            members[self._rng.choice(list(members))] = self._rng.choice(_LITERALS)

    def _drop(self, members: dict[str, str]) -> None:
        if members:
            del members[self._rng.choice(list(members))]

    def _surplus(self, members: dict[str, str]) -> None:
        members[self._rng.choice(_NAMES)] = self._rng.choice(_LITERALS)

    def _kind(self, members: dict[str, str]) -> None:
        members["type"] = f'"{self._rng.choice(_KINDS)}"'

    def _huge(self, members: dict[str, str]) -> None:
        size = self._rng.choice((200, 5_000, LIMIT - 200))
        members[self._rng.choice(_NAMES)] = self._rng.choice(
            ('"' + "x" * size + '"', "1" * size, "[" + "0," * (size // 2) + "0]", "-" + "9" * size, "0." + "1" * size)
        )

    def _deep(self, members: dict[str, str]) -> None:
        depth = self._rng.choice((5, 33, 600, 1_100, 3_000))
        before, after = self._rng.choice((("[", "]"), ('{"a":', "}"), ("[", "")))
        members[self._rng.choice(_NAMES)] = before * depth + "1" + after * depth

    # -- wrong in its bytes: mostly the end of the socket ----------------------------------------------------------

    def broken(self) -> bytes:
        data = bytearray(self.sane())
        ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._head, self._length, self._cut, self._insert, self._remove, self._utf8, self._again,
        )  # fmt: skip
        for _ in range(self._rng.randint(1, 3)):
            self._rng.choice(ways)(data)
            if not data:
                break
        return bytes(data)

    def _flip(self, data: bytearray) -> None:
        data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)

    def _head(self, data: bytearray) -> None:
        """FIN, reserved bits, opcode; or the mask bit and the short length."""
        at = min(self._rng.randrange(2), len(data) - 1)
        data[at] = self._rng.choice((data[at] ^ (1 << self._rng.randrange(8)), self._rng.randrange(256)))

    def _length(self, data: bytearray) -> None:
        """Another length than it has, in 7, 16 or 64 bits."""
        rng = self._rng
        declared = rng.choice(
            (0, 1, 125, 126, 127, 65_535, 65_536, LIMIT + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
        )
        mask = 0x80 * (rng.random() < 0.9)
        form = rng.randrange(3)
        if form == 0:
            head = bytes([mask | declared & 0x7F])
        elif form == 1:
            head = bytes([mask | 126]) + struct.pack("!H", declared & 0xFFFF)
        else:
            head = bytes([mask | 127]) + struct.pack("!Q", declared)
        data[1:2] = head

    def _cut(self, data: bytearray) -> None:
        del data[self._rng.randrange(len(data)) :]

    def _insert(self, data: bytearray) -> None:
        at = self._rng.randrange(len(data) + 1)
        data[at:at] = self._rng.randbytes(self._rng.randrange(1, 20))

    def _remove(self, data: bytearray) -> None:
        at = self._rng.randrange(len(data))
        del data[at : at + self._rng.randrange(1, 8)]

    def _utf8(self, data: bytearray) -> None:
        """A message whose text is none."""
        bad = self._rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82"))
        whole = b'{"type": "ping", "ref": "' + bad + b'"}'
        at = self._rng.randrange(len(whole))
        data[:] = self._rng.choice(
            (
                frame(TEXT, whole),
                frame(TEXT, whole[:at], fin=False) + frame(CONT, whole[at:]),
                frame(CLOSE, b"\x03\xe8" + bad),
            )
        )

    def _again(self, data: bytearray) -> None:
        data += self.sane()

    # -- how it is sent --------------------------------------------------------------------------------------------

    def pieces(self, data: bytes) -> list[bytes]:
        """The same bytes over several writes, at times one by one."""
        how = self._rng.random()
        if how < 0.5 or len(data) < 2:
            return [data]
        if how < 0.55 and len(data) < 200:
            return [data[at : at + 1] for at in range(len(data))]
        cuts = sorted(self._rng.sample(range(1, len(data)), min(self._rng.randint(1, 4), len(data) - 1)))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
