#!/usr/bin/env python3
"""Checks that imports point one way, from higher floors to lower ones, without circles.

The floors are read from docs/architecture.md: one fenced block `floors` with the crates, and one
block `floors NAME` for the modules of crates/NAME/src, ground floor first. A module may import only
from modules that stand before it. Files of one folder may import each other as long as no circle
results. A parent that only re-exports (`pub use child::X`) does not import its child; a name that is
imported through a re-export counts as imported from the file that defines it. Tests do not count.

Exits with 1 and the import circle, or the import that points upward, on stderr.

    scripts/check_layers.py            # all crates
    scripts/check_layers.py --graph data   # the imports of one crate, file by file
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ITEM = r"\b(?:struct|enum|union|trait|fn|type|const|static|mod|macro_rules!)\s+(?:mut\s+)?"


def blank(text: str) -> str:
    """The source without comments, strings and test modules; line numbers stay."""
    pattern = re.compile(
        r"//[^\n]*|/\*.*?\*/|b?r(?P<hashes>#*)\".*?\"(?P=hashes)|b?\"(?:\\.|[^\"\\])*\""
        r"|b?'(?:\\.[^']*|[^'\\])'",
        re.S,
    )
    text = pattern.sub(lambda m: "\n" * m.group().count("\n"), text)
    tests = re.compile(r"#\[cfg\(test\)\]\s*(?:pub\s+)?mod\s+\w+\s*(;|\{)")
    while found := tests.search(text):
        end = found.end()
        if found.group(1) == "{":
            depth = 1
            while depth and end < len(text):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
        text = text[: found.start()] + "\n" * text.count("\n", found.start(), end) + text[end:]
    return text


def inline_modules(text: str) -> list[tuple[int, int]]:
    """Start and end of each `mod x { … }`."""
    spans = []
    for found in re.finditer(r"\bmod\s+\w+\s*\{", text):
        depth, end = 1, found.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        spans.append((found.start(), end))
    return spans


def uses(tree: str) -> list[list[str]]:
    """The paths of a `use` tree: `a::{b, c::{self, D as E}}` gives a::b, a::c and a::c::D."""
    tree = tree.strip()
    if "{" not in tree:
        path = re.sub(r"\s+as\s+\w+$", "", tree).split("::")
        path = [segment.strip() for segment in path if segment.strip()]
        return [path[:-1] if path and path[-1] == "self" and len(path) > 1 else path]
    head, _, rest = tree.partition("{")
    prefix = [segment.strip() for segment in head.split("::") if segment.strip()]
    inner, depth, part, parts = rest[: rest.rindex("}")], 0, "", []
    for letter in inner + ",":
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    found = [prefix + path for part in parts if part.strip() for path in uses(part)]
    return [path[:-1] if path[-1] == "self" else path for path in found]


class Crate:
    """The modules of one crate, the items each defines or re-exports, and its imports."""

    def __init__(self, name: str):
        self.name = name
        self.source = ROOT / "crates" / name / "src"
        self.files: dict[tuple[str, ...], Path] = {}
        self.text: dict[tuple[str, ...], str] = {}
        for path in sorted(self.source.rglob("*.rs")):
            parts = path.relative_to(self.source).with_suffix("").parts
            if "tests" in parts or parts[-1].endswith("_tests"):
                continue
            module = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
            self.files[module] = path
            self.text[module] = blank(path.read_text())
        self.exports = {module: self.reexports(module) for module in self.files}

    def reexports(self, module: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Names that `pub use` brings into a module, and the path each comes from."""
        names: dict[str, tuple[str, ...]] = {}
        for found in re.finditer(r"\bpub(?:\([^)]*\))?\s+use\s+([^;]+);", self.text[module]):
            for path in uses(found.group(1)):
                if path and path[0] not in ("std", "core"):
                    names[path[-1]] = tuple(path)
        return names

    def absolute(self, module: tuple[str, ...], path: list[str]) -> list[str] | None:
        """A path from the crate's root, or None for another crate's."""
        if path[0] == "crate":
            return path[1:]
        if path[0] == "self":
            return [*module, *path[1:]]
        if path[0] == "super":
            base = list(module)
            while path and path[0] == "super":
                base, path = base[:-1], path[1:]
            return base + path
        if (*module, path[0]) in self.files:
            return [*module, *path]
        return None

    def target(self, path: list[str], depth: int = 0) -> tuple[str, ...] | None:
        """The module that defines what a path from the root names."""
        module: tuple[str, ...] = ()
        rest = list(path)
        while rest and (*module, rest[0]) in self.files:
            module, rest = (*module, rest[0]), rest[1:]
        if not rest or depth > 8:
            return module
        name = rest[0]
        exports = self.exports.get(module, {})
        source = exports.get(name)
        if source is None and not re.search(ITEM + re.escape(name) + r"\b", self.text[module]):
            for star in (p for n, p in exports.items() if n == "*"):
                inner = self.absolute(module, list(star[:-1]))
                if inner is not None:
                    found = self.target([*inner, name], depth + 1)
                    if found and re.search(ITEM + re.escape(name) + r"\b", self.text[found]):
                        return found
        if source is not None:
            inner = self.absolute(module, list(source))
            return module if inner is None else self.target(inner, depth + 1)
        return module

    def imports(self) -> dict[tuple[str, ...], dict[tuple[str, ...], int]]:
        """For each module the modules it imports from, and a line where it does."""
        graph: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
        for module, text in self.text.items():
            edges = graph.setdefault(module, {})
            inline = inline_modules(text)
            depth = lambda at: sum(start < at < end for start, end in inline)
            spans = []
            for found in re.finditer(r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", text):
                spans.append(found.span())
                reexport = found.group(1) is not None
                for path in uses(found.group(2)):
                    line = text.count("\n", 0, found.start()) + 1
                    self.add(edges, module, path, line, reexport, depth(found.start()))
            rest = list(text)
            for start, end in spans:
                rest[start:end] = ["\n" if c == "\n" else " " for c in rest[start:end]]
            rest = "".join(rest)
            for found in re.finditer(r"\b(?:crate|self|super)(?:::\w+)+", rest):
                path = found.group().split("::")
                line = rest.count("\n", 0, found.start()) + 1
                self.add(edges, module, path, line, False, depth(found.start()))
            children = [m[-1] for m in self.files if m[:-1] == module and m]
            for child in children:
                declared = re.search(r"(?<![:\w])" + child + r"::\w+", rest)
                if declared:
                    path = declared.group().split("::")
                    self.add(edges, module, path, rest.count("\n", 0, declared.start()) + 1, False)
        return graph

    def add(self, edges, module, path, line, reexport, depth=0):
        """Notes an import; `depth` counts the inline modules (`mod x { … }`) around it."""
        for _ in range(depth):
            if path[0] == "super":
                path = ["self", *path[1:]] if path[1:2] != ["super"] else path[1:]
        inner = self.absolute(module, path)
        if inner is None:
            return
        target = self.target(inner)
        if target is None or target == module:
            return
        if reexport and target[: len(module)] == module:
            return
        edges.setdefault(target, line)

    def show(self, module: tuple[str, ...]) -> str:
        return str(self.files[module].relative_to(ROOT))


def circles(graph):
    """Strongly connected components of more than one module (Tarjan's algorithm)."""
    index, low, stack, on, found = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on.add(node)
        for other in graph.get(node, {}):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = []
            while True:
                member = stack.pop()
                on.discard(member)
                component.append(member)
                if member == node:
                    break
            if len(component) > 1:
                found.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def circle(graph, component):
    """One circle through a component, as a list of modules that ends where it begins."""
    members, start = set(component), min(component)
    paths = {start: [start]}
    queue = [start]
    while queue:
        node = queue.pop(0)
        for other in graph[node]:
            if other == start:
                return [*paths[node], start]
            if other in members and other not in paths:
                paths[other] = [*paths[node], other]
                queue.append(other)
    return component


def floors() -> dict[str, list[str]]:
    """The blocks `floors` of docs/architecture.md: crate name, or "" for the crates."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    blocks = re.findall(r"^```floors *(\w*)\n(.*?)^```", text, re.S | re.M)
    return {name: re.sub(r"#.*", "", body).split() for name, body in blocks}


def check_crates(order: list[str]) -> list[str]:
    """Errors in the dependencies between crates."""
    problems = []
    for manifest in sorted(ROOT.glob("crates/*/Cargo.toml")):
        name = manifest.parent.name
        if name not in order:
            problems.append(f"crates/{name} is missing from the floors of docs/architecture.md")
            continue
        table = tomllib.loads(manifest.read_text()).get("dependencies", {})
        for other in (key.removeprefix("cuvee-") for key in table if key.startswith("cuvee-")):
            if other not in order or order.index(other) >= order.index(name):
                problems.append(f"crates/{name} depends on crates/{other}, which is not below it")
    return problems


def check_modules(crate: Crate, order: list[str]) -> list[str]:
    """Errors in the imports within a crate."""
    graph = crate.imports()
    problems = []
    for component in circles(graph):
        path = circle(graph, component)
        steps = [
            f"    {crate.show(a)}:{graph[a][b]} imports {crate.show(b)}"
            for a, b in zip(path, path[1:])
        ]
        problems.append("import circle in crates/" + crate.name + ":\n" + "\n".join(steps))
    for module in sorted({m[0] for m in crate.files if m} - set(order)):
        problems.append(f"crates/{crate.name}: `{module}` is missing from the floors")
    for module in sorted(set(order) - {m[0] for m in crate.files if m}):
        problems.append(f"crates/{crate.name}: the floors name `{module}`, which does not exist")
    height = {name: place for place, name in enumerate(order)}
    for module, edges in graph.items():
        for other, line in edges.items():
            if not module or module[0] not in height:
                continue
            if not other or height.get(other[0], -1) > height[module[0]]:
                above = other[0] if other else "the crate's root"
                problems.append(
                    f"{crate.show(module)}:{line} imports from {crate.show(other)}: "
                    f"`{above}` stands above `{module[0]}`"
                )
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", metavar="CRATE", help="print a crate's imports and stop")
    arguments = parser.parse_args()
    if arguments.graph:
        crate = Crate(arguments.graph)
        for module, edges in sorted(crate.imports().items()):
            print(crate.show(module))
            for other, line in sorted(edges.items()):
                print(f"    {line}: {crate.show(other)}")
        return 0
    blocks = floors()
    problems = check_crates(blocks.get("", []))
    names = [path.parent.name for path in sorted(ROOT.glob("crates/*/Cargo.toml"))]
    for name in names:
        problems += check_modules(Crate(name), blocks.get(name, []))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems; the floors stand in docs/architecture.md", file=sys.stderr)
        return 1
    print(f"imports of {len(names)} crates point one way")
    return 0


if __name__ == "__main__":
    sys.exit(main())
