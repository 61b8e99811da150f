#!/usr/bin/env python3
"""Prints index.tsv: what is in the *.bin files beside this script (notation: README.md).

Written from the description of the protocol, not from the crate, so that the two check each other."""

import ipaddress
import pathlib
import re
import zlib

FRAMES = {0: "UNSET", 1: "HAPROXY-HELLO", 2: "HAPROXY-DISCONNECT", 3: "NOTIFY",
          101: "AGENT-HELLO", 102: "AGENT-DISCONNECT", 103: "ACK"}
INTEGERS = {2: ("i", 1 << 31), 3: ("u", 1 << 32), 4: ("i", 0), 5: ("u", 0)}
SCOPES = ["proc", "sess", "txn", "req", "res"]
FIN, ABORT = 1, 2
FILE_NAME = re.compile(r"([^_]+)_(.+)_c\d+\.from-(haproxy|agent)\.bin")

class Malformed(Exception):
    """The bytes do not follow the protocol."""

def escape(data):
    plain = set(range(0x20, 0x7F)) - set(b"\\,()[]{};='")
    return "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in data)

def identifier(data):
    return escape(data).replace(" ", "\\x20") or "''"

def digest(data):
    return f"{len(data)} bytes crc32 {zlib.crc32(data):08x}"

def octets(kind, data, show):
    if len(data) <= 40:
        return f"{kind}:{show(data)}"
    return f"{kind}:{show(data[:16])}..({len(data)} bytes, crc32 {zlib.crc32(data):08x})"

class Reader:
    """Takes values off the front of some bytes."""
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Malformed
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self):
        value = self.take(1)[0]
        shift, more = 4, value >= 240
        while more:
            byte = self.take(1)[0]
            value += byte << shift
            shift, more = shift + 7, byte >= 128
            if value >= 1 << 64:
                raise Malformed
        return value

    def string(self):
        return self.take(self.varint())

    def value(self):
        flags, kind = divmod(self.take(1)[0], 16)
        if kind == 1:
            return "bool:true" if flags == 1 else "bool:false"
        if kind in INTEGERS:
            (letter, limit), number = INTEGERS[kind], self.varint()
            number -= 1 << 64 if letter == "i" and number >> 63 else 0
            return f"{letter}{32 if -limit <= number < limit else 64}:{number}"
        if kind == 6:
            return f"ipv4:{ipaddress.IPv4Address(self.take(4))}"
        if kind == 7:
            return f"ipv6:{ipaddress.IPv6Address(self.take(16))}"
        if kind == 8 and flags == 0:
            return octets("str", self.string(), escape)
        return octets("bin", self.string(), bytes.hex) if kind in (8, 9) else "null"

    def argument(self):
        return f"{identifier(self.string())}={self.value()}"

    def pair(self):
        if self.data[self.at] == 0:  # an empty key
            raise Malformed
        return self.argument()

    def message(self):
        title, count = identifier(self.string()), self.take(1)[0]
        return f"{title}({', '.join(self.argument() for _ in range(count))})"

    def action(self):
        start = self.at
        try:
            kind, count, scope = self.take(3)
            if (kind, count) not in ((1, 3), (2, 2)) or scope >= len(SCOPES):
                raise Malformed
            variable = f"{SCOPES[scope]}.{identifier(self.string())}"
            return f"set-var {variable} {self.value()}" if kind == 1 else f"unset-var {variable}"
        except Malformed:  # HAProxy keeps the actions before it and drops the rest
            self.at = len(self.data)
            return f"!bad@{self.at - start}"

def items(method, payload, layout):
    """All of a payload; `layout` is the opening, the separator and the closing of the list."""
    reader, texts = Reader(payload), []
    try:
        while reader.at < len(payload):
            texts.append(method(reader))
    except Malformed:
        return f"MALFORMED payload={digest(payload)}"
    return layout[0] + layout[1:3].join(texts) + layout[3]

def body(kind, ids, flags, payload, fragments):
    """The text of a payload; `fragments` keeps the NOTIFYs still open."""
    if kind in (1, 2, 101, 102):
        return items(Reader.pair, payload, "{, }")
    if kind == 103 and flags & FIN:
        return items(Reader.action, payload, "[, ]")
    if kind == 3 and flags & FIN:
        return items(Reader.message, payload, "[; ]")
    text = f"payload={digest(payload)}"
    if kind == 3 or kind == 0 and ids in fragments:
        fragments[ids] = (b"" if kind == 3 else fragments[ids]) + payload
        if flags & (FIN | ABORT):
            whole = items(Reader.message, fragments.pop(ids), "[; ]")
            text += "" if flags & ABORT else f" => {whole}"
    return text

def frame(data, fragments):
    if len(data) < 7:
        return f"SHORT len={len(data)} payload={digest(data)}"
    reader = Reader(data)
    kind, flags = reader.take(1)[0], int.from_bytes(reader.take(4), "big")
    ids = reader.varint(), reader.varint()
    words = [word for bit, word in ((FIN, "FIN"), (ABORT, "ABORT")) if flags & bit]
    words += [f"{flags & ~3:#x}"] if flags > 3 else []
    head = f"{FRAMES.get(kind, f'TYPE{kind}')} len={len(data)} sid={ids[0]} fid={ids[1]}"
    return f"{head} {'|'.join(words) or 0} {body(kind, ids, flags, data[reader.at:], fragments)}"

def frames(data):
    fragments = {}
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end:
            yield f"CUT({len(data)} bytes left)"
            return
        yield frame(data[4:end], fragments)
        data = data[end:]

for path in sorted(pathlib.Path(__file__).parent.glob("*.bin")):
    columns = FILE_NAME.fullmatch(path.name).groups()
    print(path.name, *columns, " ; ".join(frames(path.read_bytes())), sep="\t")
