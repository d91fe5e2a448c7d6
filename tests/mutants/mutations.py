"""Every mutant of a source file, by the operators of mutmut, and a draw of them that is repeatable.

mutmut's own runner mutates only what stands in undecorated functions; its operators work anywhere.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

LOGGERS = ("log", "warnings")
TEXT_ARGUMENTS = ("desc", "description")
UNMUTATED_CALLS = ("len", "isinstance")
"""As mutmut does: their mutants raise at once and prove nothing."""


@dataclass(frozen=True)
class Mutant:
    """One small change of one file.

    Attributes:
        file: from the repository's root.
        function: qualified name of what contains the change; "" at the module's level.
        operator: mutmut's name of the kind of change.
        line: the first line of the changed node, as the source has it, stripped.
        lines: the numbers of the lines that run when the change does, from 1.
        nth: tells identical changes of identical lines apart, from 0.
        before: source of the changed node.
        after: source that takes its place.
    """

    file: str
    function: str
    operator: str
    line: str
    lines: tuple[int, ...]
    nth: int
    before: str
    after: str
    original: cst.CSTNode = field(repr=False, compare=False)
    replacement: cst.CSTNode = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """Ten hex digits that stay when other lines of the file change."""
        key = (self.file, self.function, self.operator, self.line, self.before, self.after)
        return hashlib.sha256(repr((*key, self.nth)).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Source:
    """A file's mutants.

    Attributes:
        file: from the repository's root.
        text: the file as it is.
        mutants: all that are counted.
        left_out: how many are not, by reason.
    """

    file: str
    text: str
    mutants: tuple[Mutant, ...]
    left_out: Counter[str]
    module: cst.Module = field(repr=False)

    def mutated(self, mutant: Mutant) -> str | None:
        """The whole file with the mutant in it; None where that is no other program."""
        changed = self.module.deep_replace(mutant.original, mutant.replacement)
        assert isinstance(changed, cst.Module)
        try:
            different = ast.dump(ast.parse(changed.code)) != ast.dump(ast.parse(self.text))
            compile(changed.code, self.file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return None
        return changed.code if different else None


def read(root: Path, file: str) -> Source:
    """All mutants of one file."""
    text = (root / file).read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(text))
    finder = _Finder(file, text, wrapper.module)
    wrapper.visit(finder)
    return Source(file, text, tuple(finder.found), finder.left_out, wrapper.module)


def draw(sources: list[Source], count: int, seed: int) -> Iterator[tuple[Mutant, str]]:
    """``count`` mutants with their files' texts, every one of all files as likely as any other.

    Which are drawn follows from the seed and the mutants' ids: a change of one line changes the
    draw at that line only.
    """
    everything = [(source, mutant) for source in sources for mutant in source.mutants]
    everything.sort(key=lambda pair: hashlib.sha256(f"{seed}:{pair[1].id}".encode()).digest())
    drawn = 0
    for source, mutant in everything:
        if drawn == count:
            return
        text = source.mutated(mutant)
        if text is not None:
            drawn += 1
            yield mutant, text


def difference(before: str, after: str) -> str:
    """The changed lines, as in a diff."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


class _Finder(cst.CSTVisitor):
    """Walks a module and notes what each operator makes of each node."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, file: str, text: str, module: cst.Module) -> None:
        super().__init__()
        self.file, self.text, self.module = file, text.splitlines(), module
        self.found: list[Mutant] = []
        self.left_out: Counter[str] = Counter()
        self.names: list[str] = []
        self.statements: list[int] = []
        self.excluded: list[tuple[cst.CSTNode, str]] = []
        self.message: list[cst.CSTNode] = []
        self.seen: Counter[tuple[str, ...]] = Counter()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self.names.append(node.name.value)
        if isinstance(node, cst.BaseSmallStatement | cst.BaseCompoundStatement | cst.MatchCase):
            self.statements.append(self._span(node)[0])
        if reason := _left_out(node):
            self.excluded.append((node, reason))
        if _is_message(node):
            self.message.append(node)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                for replacement in operator(node):
                    self._note(node, replacement, operator.__name__.removeprefix("operator_"))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        node = original_node
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self.names.pop()
        if isinstance(node, cst.BaseSmallStatement | cst.BaseCompoundStatement | cst.MatchCase):
            self.statements.pop()
        if self.excluded and self.excluded[-1][0] is node:
            self.excluded.pop()
        if self.message and self.message[-1] is node:
            self.message.pop()

    def _note(self, node: cst.CSTNode, replacement: cst.CSTNode, operator: str) -> None:
        if self.excluded:
            self.left_out[self.excluded[-1][1]] += 1
            return
        if self.message and _changes_words(node, replacement):
            self.left_out["words of a message"] += 1
            return
        first, last = self._span(node)
        function, line = ".".join(self.names), self.text[first - 1].strip()
        before, after = self.module.code_for_node(node), self.module.code_for_node(replacement)
        key = (function, operator, line, before, after)
        self.found.append(
            Mutant(
                file=self.file,
                function=function,
                operator=operator,
                line=line,
                lines=tuple(sorted({*self.statements[-1:], *range(first, last + 1)})),
                nth=self.seen[key],
                before=before,
                after=after,
                original=node,
                replacement=replacement,
            )
        )
        self.seen[key] += 1

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        where = self.get_metadata(PositionProvider, node)
        return where.start.line, where.end.line


def _left_out(node: cst.CSTNode) -> str | None:
    """Why nothing below a node is mutated, if so."""
    match node:
        case cst.Annotation():
            return "annotation"
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return "docstring"
        case cst.If(test=cst.Name(value="TYPE_CHECKING")):
            return "import for annotations"
        case cst.Call(func=cst.Name(value=name)) if name in UNMUTATED_CALLS:
            return "len, isinstance"
    return None


def _is_message(node: cst.CSTNode) -> bool:
    match node:
        case cst.Raise():
            return True
        case cst.Call(func=cst.Attribute(value=cst.Name(value=name))) if name in LOGGERS:
            return True
        case cst.Arg(keyword=cst.Name(value=name)) if name in TEXT_ARGUMENTS:
            return True
    return False


def _changes_words(node: cst.CSTNode, replacement: cst.CSTNode) -> bool:
    """Whether a change within a message is of its text alone: numbers in it are something else."""
    if isinstance(node, cst.Call) and isinstance(replacement, cst.Call):
        changed = [arg for arg in node.args if not any(arg is kept for kept in replacement.args)]
        return bool(changed) and all(_is_text(arg.value) for arg in changed)
    return _is_text(node)


def _is_text(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.BinaryOperation):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, cst.SimpleString | cst.FormattedString | cst.ConcatenatedString)
