"""Damage to files as users meet it: random edits of a valid file."""

import copy
import json
import math
from typing import Any, NamedTuple

from hypothesis import strategies as st


class Edit(NamedTuple):
    """A change of a file.

    Attributes:
        kind: a name of ``KINDS``.
        at: its place; negative from the end, and modulo the length.
        size: its length.
        byte: a value, 0 to 255.
    """

    kind: str
    at: int
    size: int
    byte: int


KINDS = (
    "set a byte",
    "flip a bit",
    "insert",
    "repeat",
    "remove",
    "zeros",
    "truncate",
    "lose the beginning",
    "exchange halves",
    "repeat a line",
    "remove a line",
    "CRLF",
    "byte order mark",
    "UTF-16",
    "another separator",
    "a web page",
)
PLACES = st.integers(-400, 400) | st.integers(0, 10**7)
EDITS = st.lists(
    st.builds(Edit, st.sampled_from(list(KINDS)), PLACES, st.integers(0, 300), st.integers(0, 255)),
    min_size=1,
    max_size=3,
)


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """Return the content after these edits, in turn."""
    for edit in edits:
        content = _edited(content, edit)
    return content


def _edited(content: bytes, edit: Edit) -> bytes:
    at = edit.at % (len(content) + 1)
    before, after = content[:at], content[at:]
    line_start, line_end = before.rfind(b"\n") + 1, content.find(b"\n", at) + 1 or len(content)
    match edit.kind:
        case "set a byte":
            return before + bytes([edit.byte]) + after[1:]
        case "flip a bit":
            return before + bytes(byte ^ 1 << edit.byte % 8 for byte in after[:1]) + after[1:]
        case "insert":
            return before + bytes([edit.byte]) * (edit.size % 9 + 1) + after
        case "repeat":
            return before + after[: edit.size] + after
        case "remove":
            return before + after[edit.size + 1 :]
        case "zeros":
            return before + bytes(len(after[: edit.size])) + after[edit.size :]
        case "truncate":
            return before
        case "lose the beginning":
            return after
        case "exchange halves":
            return after + before
        case "repeat a line":
            return content[:line_end] + content[line_start:]
        case "remove a line":
            return content[:line_start] + content[line_end:]
        case "CRLF":
            return content.replace(b"\n", b"\r\n")
        case "byte order mark":
            return b"\xef\xbb\xbf" + content
        case "UTF-16":
            return content.decode("latin-1").encode("utf-16")
        case "another separator":
            return content.replace(b",", b";")
        case _:
            return b"<!DOCTYPE html><html>"


VALUES = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**30, math.inf, math.nan, "", "x", "\0\n", "../x", "\ud800", [], {}, [[1], 2], {"a": 1}]
)  # fmt: skip
JSON_EDITS = st.lists(
    st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.none() | st.tuples(VALUES)),
    min_size=1,
    max_size=2,
)


def edited_json(content: bytes, edits: list[tuple[list[int], tuple[Any] | None]]) -> bytes:
    """Return a JSON document after edits: a path of indices, and the new value there; None to remove it.

    Content that is not JSON is returned unchanged.
    """
    try:
        document: Any = json.loads(content)
    except ValueError:
        return content
    for path, value in edits:
        parent, key = document, None
        for index in path:
            child = parent if key is None else parent[key]
            if not (isinstance(child, dict | list) and child):
                break
            keys = list(child) if isinstance(child, dict) else range(len(child))
            parent, key = child, keys[index % len(keys)]
        if key is not None and value is None:
            del parent[key]
        elif key is not None and value is not None:
            parent[key] = copy.deepcopy(value[0])
    return json.dumps(document, indent=2).encode()
