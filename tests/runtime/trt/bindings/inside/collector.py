"""Finds in our code what it uses of TensorRT's module, without running it.

A small type inference over all functions of a package: it starts at everything called `trt`, and
follows assignments, calls, returns and fields until nothing new is found. What an object of
TensorRT returns is read from the bindings (`api`). A collection has the type of its elements.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.runtime.trt.bindings.inside import api
from tests.runtime.trt.bindings.inside.uses import Use

# A type is a kind with names: ("module",), ("class", C), ("object", C), ("method", C, m) of
# TensorRT; ("our class", P), ("our object", P), ("function", scope), ("unbound", scope) (a method
# that is called with its self) and ("tuple", ...) of ours.
Type = tuple
Types = frozenset
NONE: Types = frozenset()
MODULE: Type = ("module",)
# Our classes that get their bases when the module is known (register).
BASES = {
    "CrossLayerAttentionPlugin": (
        "IPluginV3",
        "IPluginV3OneCore",
        "IPluginV3OneBuild",
        "IPluginV3OneRuntime",
    ),
    "PluginCreator": ("IPluginCreatorV3One",),
}
# What a collection of TensorRT holds; Dims hold numbers.
ELEMENTS = {"PluginFieldCollection": ("object", "PluginField"), "Dims": None}
ROUNDS = 30


class Collector:
    """Infers the types of a package's variables; `uses` are what is read of TensorRT."""

    def __init__(self, folder: Path) -> None:
        self.types: dict[tuple[str, ...], set[Type]] = defaultdict(set)
        self.functions: dict[str, ast.FunctionDef] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.top: dict[str, list[str]] = defaultdict(list)  # functions of modules, by name
        self.scope_of: dict[str, str] = {}  # a class's name -> where its methods are
        self.uses: set[Use] = set()
        self.scope = self.file = ""
        modules = {path: ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}
        for path, module in modules.items():
            self._declare(module, path.stem)
        for _ in range(ROUNDS):
            before = sum(map(len, self.types.values()))
            self.uses.clear()
            for path, module in modules.items():
                self.file = path.name
                self._body(module.body, path.stem)
            if sum(map(len, self.types.values())) == before:
                break

    # --- what is declared ---

    def _declare(self, node: ast.AST, scope: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{scope}.{child.name}"
                if isinstance(child, ast.FunctionDef):
                    self.functions[inner] = child
                    if inner.count(".") == 1:
                        self.top[child.name].append(inner)
                else:
                    self.classes[child.name], self.scope_of[child.name] = child, inner
                self._declare(child, inner)
            else:
                self._declare(child, scope)

    def _fields(self, name: str) -> list[str]:
        body = self.classes[name].body
        return [n.target.id for n in body if isinstance(n, ast.AnnAssign) and _is_name(n.target)]

    def _bases(self, name: str) -> tuple[str, ...]:
        """Return the classes of TensorRT that a class of ours derives from."""
        bases = [base for base in self.classes[name].bases if isinstance(base, ast.Attribute)]
        return (*BASES.get(name, ()), *(base.attr for base in bases if _is_module(base.value)))

    # --- statements ---

    def _body(self, body: list[ast.stmt], scope: str) -> None:
        for statement in body:
            self.scope = scope
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        scope = self.scope
        if isinstance(node, ast.FunctionDef):
            self._function(node, f"{scope}.{node.name}")
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                self.infer(base)
            self._body(node.body, f"{scope}.{node.name}")
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = self.infer(node.value) if node.value else NONE
            for target in targets:
                self._assign(target, values)
        elif isinstance(node, ast.Return) and node.value:
            self._add(("return", scope), self.infer(node.value))
        else:
            self._other(node)
        self.scope = scope

    def _other(self, node: ast.AST) -> None:
        if isinstance(node, ast.For):
            self._assign(node.target, _elements(self.infer(node.iter)))
        if isinstance(node, ast.withitem) and node.optional_vars:
            self._assign(node.optional_vars, self.infer(node.context_expr))
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child)
            elif isinstance(child, ast.expr):
                self.infer(child)
            else:
                self._other(child)

    def _function(self, node: ast.FunctionDef, scope: str) -> None:
        owner = self._owner(scope)
        if owner:
            self._override(node, scope, owner)
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.infer(default)
        self._body(node.body, scope)

    def _owner(self, scope: str) -> str:
        """Return the class that a function is a method of, or ''."""
        name = scope.split(".")[-2]
        return name if self.scope_of.get(name) == scope.rpartition(".")[0] else ""

    def _override(self, node: ast.FunctionDef, scope: str, owner: str) -> None:
        """Type self, and the arguments with which TensorRT calls a method of ours."""
        first, *names = [argument.arg for argument in node.args.args] or [""]
        is_class_method = any(_is_name(d, "classmethod") for d in node.decorator_list)
        kind = "our class" if is_class_method else "our object"
        self._add(("variable", scope, first), {(kind, owner)})
        bases = self._bases(owner) if not node.name.startswith("_") else ()
        if bases:
            self._note({f"trt.{base}" for base in bases}, node.name, "override", node)
        for base in bases:
            for overload in api.signatures(f"trt.{base}", node.name):
                for name, (_, passed) in zip(names, overload.parameters, strict=False):
                    self._add(("variable", scope, name), {("object", passed)} if passed else NONE)

    def _assign(self, target: ast.expr, values: Types) -> None:
        if isinstance(target, ast.Name):
            self._add(("variable", self.scope, target.id), values)
        elif isinstance(target, ast.Starred):
            self._assign(target.value, values)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for place, element in enumerate(target.elts):
                parts = [t[1][place] for t in values if t[0] == "tuple" and place < len(t[1])]
                rest = {t for t in values if t[0] != "tuple"}
                self._assign(element, frozenset(rest.union(*parts)))
        elif isinstance(target, ast.Attribute):
            owners = self.infer(target.value)
            for owner in owners:
                if owner[0] == "our object":
                    self._add(("field", owner[1], target.attr), values)
            self._use(owners, target.attr, "set", target)
        else:
            self.infer(target)

    # --- expressions ---

    def infer(self, node: ast.expr) -> Types:
        """Return the types of an expression, and note what it uses."""
        if isinstance(node, ast.Name):
            return frozenset({MODULE}) if node.id == "trt" else self._variable(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Tuple):
            return frozenset({("tuple", tuple(self.infer(e) for e in node.elts))})
        if isinstance(node, ast.Lambda):
            self.infer(node.body)
            return NONE
        if isinstance(node, ast.Subscript):
            self.infer(node.slice)
            return _elements(self.infer(node.value))
        if isinstance(node, ast.NamedExpr):
            self._statement(node)  # type: ignore[arg-type]
            return self.infer(node.target)
        return self._parts(node)

    def _parts(self, node: ast.AST) -> Types:
        """Infer every part; a comprehension, a list or a choice has the types of its parts."""
        for generator in getattr(node, "generators", []):
            self._assign(generator.target, _elements(self.infer(generator.iter)))
        found: set[Type] = set()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                found |= self.infer(child)
            elif not isinstance(child, ast.expr_context):
                self._parts(child)
        return NONE if isinstance(node, (ast.Compare, ast.BinOp)) else frozenset(found)

    def _variable(self, name: str) -> Types:
        parts = self.scope.split(".")
        scopes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        keys = (("variable", scope, name) for scope in scopes)
        found: set[Type] = set().union(*(self.types[key] for key in keys if key in self.types))
        if name in self.classes:
            found.add(("our class", name))
        local = [s for scope in scopes if (s := f"{scope}.{name}") in self.functions]
        return frozenset(found | {("function", s) for s in (local or self.top.get(name, ()))})

    def _attribute(self, node: ast.Attribute) -> Types:
        if _is_module(node):
            return frozenset({MODULE})
        owners = self.infer(node.value)
        self._use(owners, node.attr, "read", node)
        found: set[Type] = set()
        for owner in owners:
            found |= self._member(owner, node.attr)
        return frozenset(found)

    def _member(self, owner: Type, name: str) -> set[Type]:
        kind = owner[0]
        if kind == "module":
            if isinstance(getattr(api.trt, name, None), type):
                return {("class", name)}
            return {("method", "trt", name)}
        if kind == "class":
            return {("method", f"trt.{owner[1]}", name)}
        if kind == "object":
            place = f"trt.{owner[1]}"
            held = api.result(place, name) if api.exists(place, name) else ""
            method = ("method", place, name)
            return {method, ("object", held)} if held else {method}
        if kind == "our object":
            return self._our_member(owner[1], name, "function")
        if kind == "our class":
            return self._our_member(owner[1], name, "unbound")
        return set()

    def _our_member(self, owner: str, name: str, kind: str) -> set[Type]:
        found = set(self.types[("field", owner, name)])
        scope = f"{self.scope_of[owner]}.{name}"
        if scope in self.functions:
            decorators = [d.id for d in self.functions[scope].decorator_list if _is_name(d)]
            if "property" in decorators:
                return found | self.types[("return", scope)]
            found.add(("function" if "classmethod" in decorators else kind, scope))
        return found

    def _call(self, node: ast.Call) -> Types:
        functions = self.infer(node.func)
        arguments = [self.infer(argument) for argument in node.args]
        keywords = {k.arg: self.infer(k.value) for k in node.keywords}
        for name in {f[2] for f in functions if f[0] == "method"} - {"__init__"}:
            self._note({f[1] for f in functions if f[2:] == (name,)}, name, "call", node)
        made = {("object", t[1]) for values in arguments for t in values if t[0] == "class"}
        found: set[Type] = set()
        for function in functions:
            returned = self._result(function, node, arguments, keywords)
            if made and function[0] == "function":  # it makes an object of the class that it gets
                returned = made | {t for t in returned if t[0] != "object"}
            found |= returned
        return frozenset(found)

    def _result(
        self, function: Type, node: ast.Call, arguments: list[Types], keywords: dict
    ) -> set[Type]:
        kind = function[0]
        if kind == "class":
            self._use({("class", function[1])}, "__init__", "call", node)
            return {("object", function[1])}
        if kind == "method":
            owner, name = function[1:]
            held = api.result(owner, name) if api.exists(owner, name) else ""
            return {("object", held)} if held else set()
        if kind == "our class":
            self._construct(function[1], arguments, keywords)
            return {("our object", function[1])}
        if kind in ("function", "unbound"):
            passed = arguments[1:] if kind == "unbound" else arguments
            self._bind(function[1], passed, keywords)
            return set(self.types[("return", function[1])])
        return set()

    def _construct(self, name: str, arguments: list[Types], keywords: dict) -> None:
        scope = f"{self.scope_of[name]}.__init__"
        if scope in self.functions:
            self._bind(scope, arguments, keywords)
        for field, values in [*zip(self._fields(name), arguments, strict=False), *keywords.items()]:
            self._add(("field", name, field), values)

    def _bind(self, scope: str, arguments: list[Types], keywords: dict) -> None:
        parameters = self.functions[scope].args
        names = [argument.arg for argument in (*parameters.posonlyargs, *parameters.args)]
        if self._owner(scope):
            names = names[1:]
        for name, values in [*zip(names, arguments, strict=False), *keywords.items()]:
            self._add(("variable", scope, name), values)

    # --- notes ---

    def _use(self, owners: set[Type] | Types, member: str, kind: str, node: ast.expr) -> None:
        places = {_place(t) for t in owners if t[0] in ("module", "class", "object")}
        if places:
            self._note(places, member, kind, node)

    def _note(self, places: set[str], member: str, kind: str, node: ast.expr) -> None:
        where = f"{self.file}:{node.lineno}"
        if kind != "call" or not isinstance(node, ast.Call):
            self.uses.add(Use(frozenset(places), member, kind, where))
            return
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        count = -1 if starred else len(node.args)
        keywords = frozenset(k.arg for k in node.keywords if k.arg)
        self.uses.add(Use(frozenset(places), member, "call", where, count, keywords))

    def _add(self, key: tuple[str, ...], values: set[Type] | Types) -> None:
        self.types[key] |= values


@cache
def uses(folder: Path) -> tuple[Use, ...]:
    """Return what the code of a package uses of TensorRT, sorted."""
    return tuple(sorted(Collector(folder).uses, key=lambda use: (str(use), use.where)))


def _place(kind: Type) -> str:
    return "trt" if kind == MODULE else f"trt.{kind[1]}"


def _elements(types: Types) -> Types:
    """Return the types of what a collection holds."""
    found: set[Type | None] = set()
    for kind in types:
        if kind[0] == "tuple":
            found |= frozenset().union(*kind[1])
        else:
            found.add(ELEMENTS.get(kind[1], kind) if kind[0] == "object" else kind)
    return frozenset(kind for kind in found if kind is not None)


def _is_name(node: ast.expr, name: str | None = None) -> bool:
    return isinstance(node, ast.Name) and name in (None, node.id)


def _is_module(node: ast.expr) -> bool:
    """Tell whether an expression is TensorRT's module: it is always called `trt`."""
    return _is_name(node, "trt") or (isinstance(node, ast.Attribute) and node.attr == "trt")
