"""What nobody would write, drawn: values that break readers, trees that hold some, bytes that lack some."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import yaml
from hypothesis import strategies as st

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"),
    2**31, 2**63, 2**64, -(2**63), 10**25,
    "", " ", "0", "1", "-1", "1e3", "true", "null", "NaN", "word", "word word", "é", "\0", "\n", "\t", "a\rb",
    "\u2028", "\u202e", "\ufeff", "\ud800",
    "🙂", "../../x", "/etc/passwd", "~", "a/b", ".", "${oc.env:HOME}", "${seed}", "${", "{}", "[]", "%s",
    "a" * 5000, "<script>alert(1)</script>",
    "=1+1", "os.system", "!!python/name:os.system", "finished", "bert", "0x10", "٣", "2026-11-30", "1_000",
)  # fmt: skip
KEYS = (
    "",
    " ",
    "name",
    "component",
    "status",
    "seed",
    "_target_",
    "auto_map",
    "type",
    "model_type",
    "0",
    "é",
    "a.b",
    "__metadata__",
    "defaults",
    "\0",
)
LEAVES = st.sampled_from(SCALARS) | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
DEEP = st.sampled_from((60, 3000)).map(lambda depth: Raw("[" * depth + "]" * depth))
BLOBS = st.sampled_from(
    (
        b"",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b'"',
        b"\\",
        b"{",
        b"]",
        b"\x1b[31m",
        b"\x00" * 64,
        b"9" * 400,
    )
) | st.binary(max_size=16)


class Raw(str):
    """Text to be written as it stands instead of a value."""


def paths_of(tree: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all nodes, the root's first."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [before, *(path for key, value in inner for path in paths_of(value, (*before, key)))]


@st.composite
def changed(draw: Any, tree: Any, most: int = 2, leaves: st.SearchStrategy[Any] = TREES) -> Any:
    """A copy of the tree with nodes replaced, removed, renamed, doubled, wrapped or given a neighbour."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        paths = paths_of(tree)
        path = draw(st.sampled_from(paths))
        how = draw(
            st.sampled_from(
                ("replaced", "replaced", "replaced", "removed", "renamed", "wrapped", "given", "exchanged")
            )
        )
        if not path:
            if how == "replaced" and draw(st.integers(0, 5)) == 0:
                return draw(leaves | DEEP)
            if how != "given":
                continue
        holder = tree
        for key in path[:-1]:
            holder = holder[key]
        node = holder[path[-1]] if path else tree
        if how == "replaced":
            holder[path[-1]] = draw(leaves | DEEP)
        elif how == "removed":
            del holder[path[-1]]
        elif how == "renamed" and isinstance(holder, dict):
            holder[draw(st.sampled_from(KEYS) | st.text(max_size=4))] = holder.pop(path[-1])
        elif how == "wrapped":
            holder[path[-1]] = draw(st.sampled_from(([node], {"x": node}, [node, node], str(node))))
        elif how == "given" and isinstance(node, dict):
            node[draw(st.sampled_from(KEYS) | st.text(max_size=4))] = draw(leaves)
        elif how == "given" and isinstance(node, list):
            node.insert(draw(st.integers(0, len(node))), draw(leaves))
        elif how == "exchanged":
            other = draw(st.sampled_from(paths))
            value: Any = tree
            try:
                for key in other:
                    value = value[key]
            except (KeyError, IndexError, TypeError):
                continue
            holder[path[-1]] = copy.deepcopy(value)
    return tree


def as_json(tree: Any) -> bytes:
    """As JSON; `Raw` text stands as it is."""
    raw: list[str] = []

    def plain(node: Any) -> Any:
        if isinstance(node, Raw):
            raw.append(str(node))
            return f"\x01{len(raw) - 1}\x01"
        if isinstance(node, dict):
            return {str(key): plain(value) for key, value in node.items()}
        return [plain(value) for value in node] if isinstance(node, list) else node

    text = json.dumps(plain(tree))
    for number, held in enumerate(raw):
        text = text.replace(json.dumps(f"\x01{number}\x01"), held)
    return text.encode()


def as_yaml(tree: Any) -> bytes:
    """As YAML, which reads all of JSON too; what the writer refuses, as JSON."""
    try:
        return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).encode()
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError):
        return as_json(tree)


@st.composite
def damaged(draw: Any, content: bytes, most: int = 3) -> bytes:
    """Bytes with some flipped, left out, put in or repeated."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.sampled_from((0, 1, 1, 2, 8, 64, len(content))))
        how = draw(st.sampled_from(("flipped", "put in", "left out", "replaced", "repeated", "cut")))
        if how == "flipped" and at < len(content):
            content = content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
        elif how == "cut":
            content = content[:at]
        elif how == "repeated":
            content = content[:at] + content[at : at + size] + content[at:]
        else:
            new = b"" if how == "left out" else draw(BLOBS)
            content = content[:at] + new + content[at if how == "put in" else at + size :]
    return content


def json_file(tree: Any) -> st.SearchStrategy[bytes]:
    """A JSON file with a node or some bytes changed."""
    return changed(tree).map(as_json) | changed(tree).map(as_json) | damaged(as_json(tree))


def lines_file(trees: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """JSON lines, the same."""
    content = b"".join(as_json(tree) + b"\n" for tree in trees)

    def with_changed(drawn: Any) -> bytes:
        return b"".join(
            as_json(tree).replace(b"\n", b" ") + b"\n"
            for tree in (drawn if isinstance(drawn, list) else [drawn])
        )

    return changed(list(trees)).map(with_changed) | damaged(content)


def yaml_file(tree: Any) -> st.SearchStrategy[bytes]:
    """A YAML file, the same."""
    return changed(tree).map(as_yaml) | changed(tree).map(as_yaml) | damaged(as_yaml(tree))
