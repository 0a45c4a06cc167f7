"""Canonical text: what RFC 8785 writes, held against another author's writer."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.chain.canonical import MAX_INT, canonical_json
from fondaco.shared.errors import ConfigError

INTS = st.integers(-MAX_INT + 1, MAX_INT - 1)
BODIES = st.recursive(
    st.none() | st.booleans() | INTS | st.text(),
    lambda parts: st.lists(parts, max_size=5) | st.dictionaries(st.text(), parts, max_size=5),
    max_leaves=30,
)


@given(BODIES)
def test_canonical_text_is_what_rfc8785_writes(body):
    assert canonical_json(body).encode() == rfc8785.dumps(body)


@given(BODIES)
def test_canonical_text_is_read_back_and_written_the_same(body):
    text = canonical_json(body)
    assert json.loads(text) == body
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        # RFC 8785, 3.2.3: sorted by UTF-16 code units, so U+1F600 (D83D DE00) before U+FB33.
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7},
            '{"\\r":2,"1":4,"\x80":6,"\xf6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}',
        ),
        # RFC 8785, 3.2.2.2: short escapes, then lower-case hexadecimal, then nothing escaped.
        ('\x08\t\n\x0c\r"\\/', '"\\b\\t\\n\\f\\r\\"\\\\/"'),
        ("\x00\x1f\x7f\u2028", '"\\u0000\\u001f\x7f\u2028"'),
        ({"b": [True, None, -1], "a": {}}, '{"a":{},"b":[true,null,-1]}'),
    ],
    ids=["keys", "escapes", "controls", "values"],
)
def test_canonical_text_of_the_standards_examples(body, text):
    assert canonical_json(body) == text
    assert rfc8785.dumps(body) == text.encode()


def test_tuples_and_mappings_are_written_as_lists_and_objects():
    assert canonical_json({"a": (1, ("b",))}) == '{"a":[1,["b"]]}'


@pytest.mark.parametrize(
    "body",
    [
        1.0,
        float("nan"),
        {"a": [0.5]},
        MAX_INT + 1,
        -MAX_INT - 1,
        [{"a": 2**64}],
        "\ud800",
        {"\udfff": 1},
        ["a", "b\ud83d"],
        object(),
        {1, 2},
    ],
    ids=repr,
)
def test_canonical_text_refuses_what_readers_may_read_differently(body):
    with pytest.raises(ConfigError):
        canonical_json(body)
