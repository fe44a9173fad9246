"""Mappings of a config onto those that it inherits, as yacs and mmengine merge them."""

from __future__ import annotations

from hierarch.importing.nodes import Budget, Node, Unread

MAX_DEPTH = 24
"""Levels of mappings that are merged."""
DELETE = "_delete_"
"""OpenMMLab's key of a mapping that replaces what it would inherit."""


def merged(over: Node, base: Node, budget: Budget, depth: int = 0) -> Node:
    """A mapping onto the one that it inherits from, key by key, and mappings in it likewise.

    Either may be `Unread`: then the keys of the other are all that is known.
    """
    if depth > MAX_DEPTH:
        raise over.place.error("is nested too deeply")
    if not over.is_read():
        return Node({**base.value}, base.place, over) if isinstance(base.value, dict) else over
    # where unknown keys are on top, none from below is sure to stay
    below = base.value if isinstance(base.value, dict) and not over.more else {}
    lost = base.more if base.is_read() else base
    budget.spend(len(over.value) + len(below), over.place)
    fields = dict(below)
    for key, node in over.value.items():
        if isinstance(node.value, dict):
            deletes = DELETE in node.value and node.value[DELETE].value is True
            fresh = {k: v for k, v in node.value.items() if k != DELETE}
            node = Node(fresh, node.place, node.more)
            onto = fields.get(key, lost)
            if onto is not None and not deletes:
                node = _onto(node, onto, budget, depth)
        fields[key] = node
    return Node(fields, over.place, over.more or lost)


def _onto(node: Node, onto: Node, budget: Budget, depth: int) -> Node:
    if onto.is_read() and not isinstance(onto.value, dict):
        what = f"a mapping here that is none in {onto.place}"
        return Node(Unread(what, f"give it {DELETE}=True"), node.place)
    return merged(node, onto, budget, depth + 1)


def update(node: Node, other: Node, budget: Budget, *, nested: bool) -> None:
    """node.update(other) in place; `nested`: mappings in both likewise, as mmengine's dicts do."""
    waiting = [(node, other)]
    while waiting:
        node, other = waiting.pop()
        budget.spend(len(other.value), other.place)
        for key, new in other.value.items():
            old = node.value.get(key)
            both = old is not None and all(isinstance(n.value, dict) for n in (old, new))
            if nested and both and old is not new:
                waiting.append((old, new))
            else:
                node.value[key] = new
