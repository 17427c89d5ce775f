"""Runs the code of a tutorial in order, and returns what each block prints and draws.

Usage: python docs/run_tutorial.py docs/tutorials/NAME.md, in an empty folder. It prints JSON: one
list of text and pictures (PNG in base64) per block.
"""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(?:python|sh)\n.*?^```$", re.MULTILINE | re.DOTALL)
PROGRESS = re.compile(r"^.*; (?:.* left|time left unknown)\n", re.MULTILINE)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def main(page: str) -> None:
    """Runs all blocks. Python shares one namespace; ``%%writefile NAME`` writes a file."""
    namespace = {"__name__": "__main__"}
    outputs, seen = [], set[tuple[Path, int]]()
    for block in BLOCK.findall(Path(page).read_text(encoding="utf-8")):
        first, _, code = block.removesuffix("```").partition("\n")
        printed = io.StringIO()
        if code.startswith("%%writefile "):
            name, _, code = code.removeprefix("%%writefile ").partition("\n")
            Path(name).write_text(code, encoding="utf-8")
        elif first == "```python":
            with contextlib.redirect_stdout(printed):
                exec(compile(code, page, "exec"), namespace)  # The page is ours.
        else:
            done = subprocess.run(
                ["bash", "-ec", code], env=ENVIRONMENT, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{code}\n{done.stderr}")
            printed.write(PROGRESS.sub("", done.stdout))
        drawn = {(path, path.stat().st_mtime_ns) for path in Path().glob("*.png")} - seen
        seen |= drawn
        pictures = [base64.b64encode(path.read_bytes()).decode() for path, _ in sorted(drawn)]
        outputs.append([printed.getvalue().strip("\n"), pictures])
    print(json.dumps(outputs))


if __name__ == "__main__":
    main(sys.argv[1])
