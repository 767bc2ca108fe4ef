"""Notes each call of the product's functions, in whatever thread, while a file exists.

It changes the source of the product's modules as they are imported: a function notes its arguments when it is entered,
what it returns or yields, and that it ended. Python's own profiler would have to be set in every thread, and the
threads of the HTTP server are not Python's. Each process writes its notes as lines of JSON into a file of its own.
Imports the standard library only.
"""

import ast
import builtins
import json
import os
import re
import sys
import threading
import time
from collections import deque
from functools import partial
from importlib.machinery import SourceFileLoader
from itertools import count
from pathlib import Path
from types import CellType, CodeType, FrameType, FunctionType, MethodType
from typing import Any
from uuid import UUID

#: Notes are written while this file exists, into its folder.
FLAG = os.environ.get("JOB_PATH_FLAG", "")  # noqa: TID251 - no setting: the product knows nothing of it.
#: The checkout whose functions are noted: processes of the product start in its root.
TREE = os.getcwd()
PACKAGES = ("api", "ops", "workers", "scheduler", "headrace", "plugins")
#: How deep a value is searched for ids, and how many of its parts.
DEEP, MANY = 6, 3000
_ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_ROOTS = tuple(os.path.join(TREE, name, "") for name in PACKAGES)
_EMPTY = CellType()
_GROUPS = (list, tuple, set, frozenset, deque)
#: The name under which changed modules find this one.
_NAME = "_job_path"

_compiled = SourceFileLoader.get_code
_numbers = count()
#: By the identity of a frame, the number of its call, and its code: another frame may come to the same address.
_frames: dict[int, tuple[int, CodeType]] = {}
#: Everything noted by its identity, so that no other object gets the same one.
_kept: list[object] = []
#: Instances of the product's classes that were made while calls were noted, by identity.
_born: set[int] = set()


class _Noting(ast.NodeTransformer):
    """Lets each function of a module note its calls."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._noted(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._noted(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.generic_visit(node)
        # `enter` returns None, and `show` what it is given.
        node.body = ast.BoolOp(ast.Or(), [_call("enter", _arguments(node.args)), _call("show", node.body)])
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        node.value = node.value and _call("show", node.value)
        return node

    def visit_Yield(self, node: ast.Yield) -> ast.AST:
        self.generic_visit(node)
        node.value = node.value and _call("show", node.value)
        return node

    def _noted(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        docstring = node.body[: ast.get_docstring(node, clean=False) is not None]
        body = node.body[len(docstring) :] or [ast.Pass()]
        enter = ast.Expr(_call("enter", _arguments(node.args)))
        node.body = [*docstring, enter, ast.Try(body, [], [], [ast.Expr(_call("end"))])]
        return node


def _call(function: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Attribute(ast.Name(_NAME, ast.Load()), function, ast.Load()), list(arguments), [])


def _arguments(given: ast.arguments) -> ast.expr:
    """A tuple of all arguments."""
    values: list[ast.expr] = [
        ast.Name(each.arg, ast.Load()) for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)
    ]
    if given.vararg:
        values.append(ast.Starred(ast.Name(given.vararg.arg, ast.Load()), ast.Load()))
    if given.kwarg:
        named = ast.Attribute(ast.Name(given.kwarg.arg, ast.Load()), "values", ast.Load())
        values.append(ast.Starred(ast.Call(named, [], []), ast.Load()))
    return ast.Tuple(values, ast.Load())


def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
    """A module's code, in place of `SourceFileLoader.get_code`: the product's is compiled anew, so that it notes."""
    path = loader.get_filename(name)
    if not FLAG or not os.path.abspath(path).startswith(_ROOTS):
        return _compiled(loader, name)
    return compile(noting(Path(path).read_text()), path, "exec", dont_inherit=True)


def noting(source: str) -> ast.Module:
    """A module whose functions note their calls."""
    return ast.fix_missing_locations(_Noting().visit(ast.parse(source)))


def enter(arguments: tuple[object, ...]) -> None:
    """Note that the calling function was entered with these."""
    if not os.path.exists(FLAG):
        return
    frame = sys._getframe(1)
    number = next(_numbers)
    parent, standing = _above(frame)
    code = frame.f_code
    if code.co_name == "__init__":
        _kept.append(arguments[0])
        _born.add(id(arguments[0]))
    _frames[id(frame)] = number, code
    _write(
        {
            "call": number,
            "parent": parent,
            "standing": standing,
            "function": _place(code),
            "thread": threading.current_thread().name,
            "values": [_described(value) for value in arguments],
        }
    )


def show(value: Any) -> Any:
    """Note what the calling function returns or yields; returns it."""
    if (number := _number_of(sys._getframe(1))) is not None and os.path.exists(FLAG):
        _write({"call": number, "thread": threading.current_thread().name, "values": [_described(value)]})
    return value


def end() -> None:
    """Forget the frame of the calling function, which ends."""
    _frames.pop(id(sys._getframe(1)), None)


def _number_of(frame: FrameType) -> int | None:
    number, code = _frames.get(id(frame), (None, None))
    return number if code is frame.f_code else None


def _above(frame: FrameType) -> tuple[int | None, list[list[Any]]]:
    """The call that called this one, and functions between that were entered before calls were noted."""
    standing, above = list[list[Any]](), frame.f_back
    while above is not None:
        if (number := _number_of(above)) is not None:
            return number, standing
        if above.f_code.co_filename.startswith(_ROOTS) and not _is_part(above.f_code):
            standing.append(_place(above.f_code))
        above = above.f_back
    return None, standing


def _is_part(code: CodeType) -> bool:
    """True of code that is no function to its reader: a module, a class, a comprehension."""
    return (code.co_name.startswith("<") and code.co_name != "<lambda>") or not code.co_flags & 1


def _place(code: CodeType) -> list[Any]:
    return [os.path.relpath(code.co_filename, TREE), code.co_qualname, code.co_firstlineno]


def _described(value: object) -> dict[str, Any]:
    """A value: its identity, the ids that it holds, and the kinds of value that it is or directly holds."""
    found = {"ids": sorted(_ids(value)), "kinds": _kinds(value)}
    if not isinstance(value, str | bytes | int | float | UUID | None):
        _kept.append(value)
        found["is"] = id(value)
    return found


def _kinds(value: object) -> list[tuple[str, int]]:
    """The value and, of a group, its members: name and identity of each that is of a class of the product, or bare."""
    members = [value]
    if isinstance(value, _GROUPS):
        members += value
    elif isinstance(value, dict):
        members += value.values()
    named = [(_kind(each), each) for each in members]
    _kept.extend(each for kind, each in named if kind)
    return [(kind, id(each)) for kind, each in named if kind]


def _kind(value: object) -> str:
    of = type(value)
    if of in (tuple, dict):
        return of.__name__ if value else ""
    return f"{of.__module__}.{of.__qualname__}" if of.__module__.partition(".")[0] in PACKAGES else ""


def _ids(value: object) -> set[str]:
    """The ids in a value and its parts, 32 hexadecimal digits each."""
    found, seen = set[str](), set[int]()
    todo = deque([(value, 0)])
    while todo and len(seen) < MANY:
        each, depth = todo.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, UUID):
            found.add(each.hex)
        elif isinstance(each, str):
            found |= {text.replace("-", "") for text in _ID.findall(each)}
        elif isinstance(each, bytes | bytearray):
            found |= {text.replace("-", "") for text in _ID.findall(each.decode("latin-1"))}
        elif depth < DEEP:
            todo.extend((part, depth + 1) for part in _parts(each))
    return found


def _parts(value: object) -> list[object]:
    """What a group holds; the fields of a value. Nothing of a service, which would hold all jobs at once."""
    if isinstance(value, _GROUPS):
        return list(value)
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, BaseException):
        return list(value.args)
    if isinstance(value, partial):
        return [*value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if cell != _EMPTY]
    of = type(value)
    if not hasattr(of, "__dataclass_fields__") and not hasattr(of, "model_fields") and id(value) not in _born:
        return []
    names = [name for base in of.__mro__ for name in getattr(base, "__slots__", ())]
    slots = [getattr(value, name) for name in names if name != "__weakref__" and hasattr(value, name)]
    return [*slots, *getattr(value, "__dict__", {}).values()]


def _write(note: dict[str, Any]) -> None:
    line = json.dumps({"at": time.monotonic(), **note}) + "\n"
    path = os.path.join(os.path.dirname(FLAG), f"{os.getpid()}.jsonl")
    # Opened for each line, since a process may be forked; lines of an append are whole.
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


setattr(builtins, _NAME, sys.modules[__name__])
