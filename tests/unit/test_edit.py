"""Values put into YAML texts: everything else stays byte for byte, and what can't be done is said."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tinksched.config.broken import Broken
from tinksched.config.edit import BadEdit, Template, values_of

TEXT = """\
# head
lr: 0.001   # rate
opt:
    name: adam  # which
    betas: [0.9, 0.99]
layers:   # important
  - 64
  - 32
# after
text: |
  hello
  world

empty:    # nothing
base: &b {x: 1, y: 2}
use: *b
a.b: 3
last:
- 1
- {k: v}
"""


def edited(before: str, **given: str) -> str:
    return put(before, *given.items())


def put(text: str, *given: tuple[str, str]) -> str:
    template = Template(text, [key for key, _ in given])
    values = [values_of(said)[0] for _, said in given]
    template.check(values)
    return template.filled(values)


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_only_the_values_change() -> None:
    assert edited(TEXT, lr="0.1") == TEXT.replace("0.001", "0.1")
    assert put(TEXT, ("opt.name", "sgd")) == TEXT.replace("adam", "sgd")
    assert put(TEXT, ("opt.betas.1", "0.5"), ("last.-1.k", "w")) == TEXT.replace("0.99", "0.5").replace("k: v", "k: w")
    assert put(TEXT, ("a.b", "9")) == TEXT.replace("a.b: 3", "a.b: 9"), "a key that itself holds a dot"


def test_blocks_give_way_and_the_comments_around_them_stay() -> None:
    assert edited(TEXT, layers="[1, 2]") == TEXT.replace(
        "layers:   # important\n  - 64\n  - 32\n", "layers: [1, 2]  # important\n"
    )
    assert edited(TEXT, text="'x, y'") == TEXT.replace("|\n  hello\n  world\n", "'x, y'\n")
    assert edited(TEXT, empty="5") == TEXT.replace("empty:  ", "empty: 5  ")
    assert edited(TEXT, base="{x: 3}") == TEXT.replace("{x: 1, y: 2}", "{x: 3}"), "the anchor is still there"
    assert edited(TEXT, use="null") == TEXT.replace("*b", "null")


def test_new_keys_are_put_at_the_end_of_their_map() -> None:
    text = put(TEXT, ("+opt.new.z", "1"), ("+opt.new.q", "2"), ("+top", "true"), ("+base.n", "0"), ("+empty.e", "1"))
    assert "    betas: [0.9, 0.99]\n    new: {z: 1, q: 2}\nlayers:" in text
    assert text.endswith("- {k: v}\ntop: true\n") and "&b {x: 1, y: 2, n: 0}" in text
    assert "empty: {e: 1}    # nothing\n" in text
    assert put("", ("+a.b", "1")) == "a: {b: 1}\n" and put("# c", ("+a", "1")) == "# c\na: 1\n"
    assert put("a: 1", ("+it's new", "x")) == "a: 1\n'it''s new': x"


def test_marks_and_line_ends_of_windows_stay() -> None:
    assert edited("\ufefflr: 1\r\nb: 2\r\n", lr="7") == "\ufefflr: 7\r\nb: 2\r\n"


def test_values_are_yaml_scalars_lists_and_maps() -> None:
    said = "1,'a,b',[1,2],3..5,{a: 1, b: 2},it's,yes,x[1"
    assert [value.text for value in values_of(said)] == [
        "1", "'a,b'", "[1,2]", "3", "4", "5", "{a: 1, b: 2}", "it's", "yes", "'x[1'",
    ]  # fmt: skip
    assert [value.data for value in values_of("1,'1',true,null,~,0.5,2..0")] == [1, "1", True, None, None, 0.5, 2, 1, 0]


@pytest.mark.parametrize(("said", "text"), [("1e-3", "1.0e-3"), ("-2.5E4", "-2.5e+4"), ("1.e5", "1.0e+5")])
def test_an_exponent_is_a_number_to_every_reader(said: str, text: str) -> None:
    """PyYAML, which most scripts use, takes 1e-3 for a text."""
    (value,) = values_of(said)
    assert value.text == text and value.data == float(said)


@pytest.mark.parametrize(
    ("key", "said", "message"),
    [
        ("lx", "1", "there is no key 'lx'"),
        ("layers.5", "1", "has 2 items"),
        ("layers.x", "1", "goes through a list"),
        ("use.x", "1", "behind the alias"),
        ("+lr", "1", "in the template already"),
        ("+opt..x", "1", "an empty part"),
        ("+lr.x", "1", "no map"),
        ("lr", "a: b", "more than one"),
        ("lr", "", "is empty"),
        ("lr", "1,,2", "is empty"),
        ("lr", "[1", "never closed"),
        ("lr", "'1", "never closed"),
        ("lr", "x #y", "more than one"),
        ("lr", "*b", "no YAML value"),
        ("lr", "- 1", "more than one"),
        ("lr", "a\x1bb", "can't be printed"),
        ("lr", "1..99999999", "too long"),
    ],
)
def test_what_can_not_be_done_is_said(key: str, said: str, message: str) -> None:
    with pytest.raises(BadEdit, match=message):
        put(TEXT, (key, said))


def test_near_keys_are_named() -> None:
    with pytest.raises(BadEdit) as bad:
        put(TEXT, ("opt.nam", "x"))
    assert bad.value.near[0] == "opt.name"


def test_a_key_within_another_one_is_refused() -> None:
    with pytest.raises(BadEdit, match="part of opt"):
        put(TEXT, ("opt.name", "x"), ("opt", "y"))


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: 1\n b: 2\n", (2, 3)), ("a: [1\n", (1, 4)), ("a: 1\na: 2\n", (2, 1)), ("a: *x\n", (1, 4)),
     ("a: 1\n---\nb: 2\n", (2, 1)), ("[" * 500, (1, 101))],
)  # fmt: skip
def test_an_unparsable_text_has_a_line_and_a_column(text: str, place: tuple[int, int]) -> None:
    with pytest.raises(Broken) as broken:
        Template(text, ["a"])
    assert (broken.value.line, broken.value.column) == place


def parses(text: str, tree: object) -> bool:
    try:
        return bool(load(text) == tree)
    except YAMLError:
        return False


SCALARS = st.one_of(st.integers(-99, 99), st.booleans(), st.none(), st.text("ab '\"#,", max_size=4))
TREES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("xyz", min_size=1), inner)),
    max_leaves=6,
)  # fmt: skip


@given(st.dictionaries(st.text("klm", min_size=1, max_size=3), TREES, min_size=1, max_size=4), st.data())
@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_whatever_a_file_holds_one_value_changes_and_no_other(tree: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tree)))
    stream = io.StringIO()
    writer = YAML()
    writer.default_flow_style = data.draw(st.booleans())
    writer.indent(sequence=4, offset=data.draw(st.sampled_from([0, 2])))
    writer.dump(tree, stream)
    assume(parses(stream.getvalue(), tree))  # what its own writer writes the library can't always read
    assert load(put(stream.getvalue(), (key, "[7, x]"))) == {**tree, key: [7, "x"]}
    assert load(put(stream.getvalue(), ("+new.one", "7"))) == {**tree, "new": {"one": 7}}
