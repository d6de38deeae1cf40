"""The reader of `retry_on`."""

from __future__ import annotations

from ..core.model import OOM, RETRIED
from .document import ScalarNode, SequenceNode
from .values import Value, did_you_mean, is_empty

_WORDS = (OOM, *RETRIED)


def conditions(value: Value) -> tuple[str | int, ...]:
    """What is retried: words and exit codes; one of them alone, or a list, which may be empty."""
    if isinstance(value.node, ScalarNode) and not is_empty(value.node):
        return (_condition(value),)
    if not isinstance(value.node, SequenceNode):
        raise value.bad("a list, such as [oom, lost, 75]")
    items = [value.child(item, f"{value.label}[{index}]") for index, item in enumerate(value.node.items)]
    found = [value.context.attempt(_condition, item) for item in items]
    return tuple(dict.fromkeys(item for item in found if item is not None))


def _condition(value: Value) -> str | int:
    word = value.node.text if isinstance(value.node, ScalarNode) else ""
    if word in _WORDS:
        return word
    if word.isdecimal() and len(word) <= 3 and 1 <= int(word) <= 255:
        return int(word)
    raise value.bad(f"{', '.join(_WORDS)} or an exit code from 1 to 255", did_you_mean(word, _WORDS))
