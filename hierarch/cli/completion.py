"""What the shell completes: presets, parts, and the paths of `--set`. Imports no torch.

Every function takes what is typed of a word, and returns what the word may become. Another
package's parts are known by their names alone: no code runs on a press of the Tab key.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import entry_points
from typing import Any

import typer

from hierarch.spec import shipped

VARIABLE = "_HIERARCH_COMPLETE"
"""What the shell sets to ask for completions, and what for."""
Found = list[tuple[str, str]]
"""Words, each with its description."""


@contextmanager
def whole_words() -> Iterator[None]:
    """For bash, which cuts words at each "=": joins the words that it passes, and leaves of the
    completions what comes after the "=" that is typed."""
    if os.environ.get(VARIABLE) != "complete_bash":
        yield
        return
    words, current = joined(os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"]))
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(current)}
    word = words[current] if current < len(words) else ""
    value = word.partition("=")[2] if word.startswith("-") else word
    typed = value.removesuffix(value.rpartition("=")[2])
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            print(line.removeprefix(typed))


def joined(words: list[str], current: int) -> tuple[list[str], int]:
    """Words that bash cut at "=" in one piece again, and which of them is the current one.

    >>> joined(["hierarch", "show", "--set", "norm", "=", "aff"], 5)
    (['hierarch', 'show', '--set', 'norm=aff'], 3)
    """
    whole: list[str] = []
    for i, word in enumerate(words):
        if whole and "=" in (word, words[i - 1]):
            whole[-1] += word
        else:
            whole.append(word)
        if i == current:
            place = len(whole) - 1
    return whole, place if current < len(words) else len(whole)


def specs(incomplete: str) -> list[str]:
    """Presets, by their whole names or else by their last ones, and YAML files."""
    return _documents("specs", incomplete)


def recipes(incomplete: str) -> list[str]:
    """Recipes that come with the library, and YAML files."""
    return _documents("recipes", incomplete)


def mixers(incomplete: str) -> Found:
    """Token mixers, with what each does."""
    return _parts("mixer", incomplete)


def parts(incomplete: str) -> Found:
    """KIND=NAME: kinds of parts, and the parts of each."""
    kind, equals, name = incomplete.partition("=")
    if not equals:
        definitions = shipped.schema("specs")["$defs"]
        kinds = dict.fromkeys(name.partition(".")[0] for name in definitions if "." in name)
        return [(f"{kind}=", "") for kind in kinds if kind.startswith(incomplete)]
    return [(f"{kind}={part}", about) for part, about in _parts(kind, name)]


def _parts(kind: str, incomplete: str) -> Found:
    definitions = shipped.schema("specs")["$defs"]
    if kind not in definitions:
        return []
    own = {name: definitions[f"{kind}.{name}"] for name in definitions[kind]["anyOf"][0]["enum"]}
    found = {name: " ".join(node["description"].split()) for name, node in own.items()}
    found |= {entry.name: entry.value for entry in entry_points(group=f"hierarch.{kind}s")}
    return [pair for pair in sorted(found.items()) if pair[0].startswith(incomplete)]


def layouts(incomplete: str) -> list[str]:
    """Libraries whose layouts of weights are known."""
    from hierarch.weights.registry import libraries

    return [name for name in libraries() if name.startswith(incomplete)]


def source_layouts(incomplete: str) -> list[str]:
    """The same, and `auto`."""
    return [*(["auto"] if "auto".startswith(incomplete) else []), *layouts(incomplete)]


def targets(incomplete: str) -> list[str]:
    """Kinds of files that networks are exported to."""
    from hierarch.exporting.registry import target_names

    return [name for name in target_names() if name.startswith(incomplete)]


def families(incomplete: str) -> Found:
    """What `hierarch new` can start from, with the preset of each."""
    return [pair for pair in shipped.FAMILIES.items() if pair[0].startswith(incomplete)]


def spec_assignments(ctx: typer.Context, incomplete: str) -> Found:
    """`--set` in a spec: of the parts and stages that the named spec has."""
    return _spec_paths(ctx, incomplete)


def recipe_assignments(ctx: typer.Context, incomplete: str) -> Found:
    """`--set` of `hierarch train`: in the recipe, or under `spec.` in the specs."""
    from hierarch.spec.vocabulary import Place, completed

    if incomplete.startswith("spec."):
        below = _spec_paths(ctx, incomplete.removeprefix("spec."))
        return [(f"spec.{path}", about) for path, about in below]
    schema = shipped.schema("recipes")
    recipe = _read(ctx.params.get("recipe"), "recipes")
    found = completed(Place(schema, (schema,), recipe), incomplete)
    if "spec.".startswith(incomplete):
        if not found:
            return recipe_assignments(ctx, "spec.")
        found.append(("spec.", "a field of the specs"))
    return found


def _spec_paths(ctx: typer.Context, incomplete: str) -> Found:
    from hierarch.spec.vocabulary import Place, completed

    # while an option lacks its value, no argument has been assigned yet
    named = [ctx.params.get("spec"), *(ctx.params.get("specs") or ()), *ctx.args]
    data = _read(next((name for name in named if name), None), "specs")
    if mixer := ctx.params.get("mixer"):  # of `hierarch swap`
        data = (data or {}) | {"mixer": mixer}
    elif part := ctx.params.get("part"):
        kind, _, name = part.partition("=")
        data = (data or {}) | {kind: name}
    schema = shipped.schema("specs")
    return completed(Place(schema, (schema,), data), incomplete)


def _read(source: Any, folder: str) -> dict[str, Any] | None:
    """The plain data of a document, or None for one that cannot be read."""
    from hierarch.errors import HierarchError
    from hierarch.spec import documents
    from hierarch.spec.reader import Kind

    try:
        data = documents.read(str(source), Kind(folder, folder, folder)).data if source else None
    except HierarchError:
        return None
    return data if isinstance(data, dict) else None


def _documents(folder: str, incomplete: str) -> list[str]:
    every = shipped.documents(folder)
    named = [name for name in every if name.startswith(incomplete)]
    last = [name.rpartition("/")[2] for name in every]
    named = named or [name for name in last if name.startswith(incomplete)]
    head, tail = os.path.split(incomplete)
    try:
        beside = sorted(os.listdir(head or "."))
    except OSError:
        beside = []
    files = [name for name in beside if name.startswith(tail) and name.endswith((".yaml", ".yml"))]
    # bash would take a blank for the end of the word
    return [*named, *(os.path.join(head, name) for name in files if name.split() == [name])]
