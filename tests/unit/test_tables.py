"""Tables where there is no terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinksched.cli.tables import Table, lines, width_of

texts = st.text("aé✔日\u0301 ", max_size=4).map(str.strip)


@given(st.lists(st.tuples(texts, texts, texts), max_size=5))
def test_the_cells_of_a_column_begin_or_end_below_each_other(rows: list[tuple[str, str, str]]) -> None:
    table = Table(("A", "B", "C"), [[(text, "") for text in row] for row in rows], right=1)
    all_rows = [("A", "B", "C"), *rows]
    first, second = (max(width_of(row[at]) for row in all_rows) for at in (0, 1))
    for (a, b, c), line in zip(all_rows, lines([table]), strict=True):
        left = a + " " * (first - width_of(a))
        assert line == f"{left}  {' ' * (second - width_of(b))}{b}  {c}".rstrip()
