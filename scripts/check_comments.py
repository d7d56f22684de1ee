#!/usr/bin/env python3
"""Checks comments: at most 100 columns, and no reference to a document outside the repository.

Looks at the comment lines of Rust, Python, TOML and shell files that Git tracks, doc comments
included. Code is rustfmt's matter. Tables and addresses in doc comments are no exception: break
the table, or put the address on a line of its own.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100
COMMENT = {".rs": re.compile(r"^\s*//"), ".py": re.compile(r"^\s*#"), ".sh": re.compile(r"^\s*#"),
           ".toml": re.compile(r"^\s*#")}
ELSEWHERE = re.compile(
    r"\b(?:METHOD|DESIGN|STRATEGIES|HOUSE|FORMATS|HUB|COMPARE|SEARCH|CUDA|STYLE)(?:\.md| ?§)|/work/"
)


# A string or character of Rust, or a comment behind code.
TOKEN = re.compile(r'b?r#*".*?"#*|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'|//')


def trailing(line: str) -> bool:
    """Whether a comment stands behind the code of a line of Rust."""
    return any(found.group() == "//" for found in TOKEN.finditer(line))


def problems(path: Path) -> list[str]:
    """What is wrong with the comments of one file."""
    comment = COMMENT.get(path.suffix) or COMMENT[".sh"]
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        behind = path.suffix == ".rs" and len(line) > WIDTH and trailing(line)
        if not comment.match(line) and not behind:
            continue
        if len(line) > WIDTH:
            found.append(f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, at most {WIDTH}")
        if elsewhere := ELSEWHERE.search(line):
            found.append(
                f"{path.relative_to(ROOT)}:{number}: `{elsewhere.group()}` is not in the repository"
            )
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "*.rs", "*.py", "*.sh", "*.toml", ".ci/run"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )
    files = [ROOT / name for name in listed.stdout.split()]
    found = [problem for path in files if path.is_file() and path.name != "check_comments.py"
             for problem in problems(path)]
    print("\n".join(found) if found else f"comments of {len(files)} files are in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
