"""Documentation, docstrings, messages and comments are written in plain American English."""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKED = ["README.md", "CONTRIBUTING.md", "docs", "afmlib", "benchmarks", "plugins"]
"""Files and folders that are checked: Markdown, comments of YAML, and all text of Python."""

GENERATED = ROOT / "benchmarks/results"
"""Reports, which ``benchmarks/report.py`` writes from results."""

CLAIMS = ROOT / "benchmarks/suites/paper_small"
"""Claims. Only docstrings and comments are checked: their texts are part of the committed report,
and ``benchmarks/report.py --check`` fails if they change."""

NOT_THERE = r"(?<![Tt]here )"
COMPARED = r"longer|more|less|fewer|better|worse|need|way"
PEOPLE = r"Lets|Tells|Says|Knows|Asks|Remembers|Surrounds|Forgives|Gives way"
ROOTS = (
    r"normal|optim|initial|parameter|discret|organ|recogn|serial|summar|penal|visual|general|random"
    r"|real|minim|maxim|regular|quant|token|util|special|standard|memor"
)

SUGGESTIONS = {
    # Idioms of another language.
    r"\b(go(es|ing)?|gone|went) on\b": "resume, continue",
    r"\banew\b": "again, from scratch",
    r"\b(mak(e|es|ing)|made) up for\b": "redo",
    rf"{NOT_THERE}\b(is|are|was|were) no (?!{COMPARED})[a-z]": "is not a",
    r"(?<!one )(?<!each )(?<!all )(?<!some )(?<!most )\bof which\b": "subject first",
    r"\bof whose\b": "subject first",
    r"(?<!let )\balone\b": "only",
    r"\bunless (given|asked|told|said|overridden|otherwise)\b": "Defaults to ...",
    r"\b(each|every|any|one|no) further\b": "more, another",
    r"\bheed(s|ed|ing)?\b": "uses, is conditioned on",
    r"\bwhat (there|it) (is|are|was)\b": "the noun",
    r"\bwhat (is|was|are|were) (left|kept|stored|repaired)\b": "the noun",
    r'^[rf]?"""What\b': "the noun",
    r"\bstop(s|ped)? to [a-z]": "stop ...ing",
    r"\b(no matter of|as ever|thrice|for ever|so to say)\b": "a plainer word",
    r"\b(can|could|to) be had\b": "is available",
    r"\bas it stands\b": "unchanged",
    r"\band (its|their) like\b": "and similar",
    r"\bin turns\b": "alternating, round-robin",
    r"\b(nobody|whoever)\b": "the passive, or the user",
    r"\bto the (last )?bit\b": "bit for bit",
    # Verbs of people for functions.
    r"(?i)(?<!connection )\brefus(e|es|ed|ing)\b": "raises, is an error",
    r"\btells? (whether|what|which)\b": "returns whether",
    rf'^[rf]?"""({PEOPLE})\b': "Returns, Sets, Wraps",
    r"\b(held|holds?) still\b": "frozen",
    # The terms of the field.
    r"\baveraged (generator|network|classifier|discriminator|model|weights)\b": "EMA generator",
    r"(?<!\.)\bdamaged\b": "corrupt",
    r"\bwhole checkpoints?\b": "complete or valid checkpoint",
    r"\bpublished (files?|checkpoints?|layout|weights|models?)\b": "official checkpoint",
    r"\bparts of (a|its) (batch|share)\b": "micro-batches",
    r"\bnoised\b": "noisy",
    r"\bback-ends?\b": "backend",
    r"\bderivatives? along\b": "JVP",
    # American spelling.
    rf"(?i)\b\w*({ROOTS})is(e|ed|es|er|ing|ation)": "-ize",
    r"(?i)\b(synthesis(e|ed|ing)|analys(e|ed|ing)|emphasis(e|ed|ing))\b": "-ize, -yze",
    r"(?i)\b(behaviou?r|colou?r|neighbou?r|favou?r)(?<=our)(s|ed|ing|able|ite)?\b": "-or",
    r"(?i)\b(un)?(labell|modell|travell)(ed|ing)\b": "one l",
    r"(?i)\b(centr(e|es|ed|ing)|grey|licence|maths|artefacts?|whilst)\b": "American spelling",
    r"\b(misspelt|spoilt|learnt|burnt)\b": "-ed",
}
"""Pattern -> wording to use instead."""

GOOD = [
    "There is no config 'afm_digit'. Did you mean 'afm_digits'?",
    "The run is no longer training; no more than two checkpoints stay.",
    "Ten images, one of which is corrupt, are listed, let alone read.",
    "Connection refused. The color and behavior of four neighbors.",
    "An emphasis on analysis and synthesis. A precise premise and a promise.",
    "Published numbers and published FIDs are not comparable.",
]
BAD = [
    "The run goes on.",
    "This is no square.",
    "Networks of which weights alone are kept.",
    "The path; runs/NAME unless given.",
    '"""Refuses a number of steps."""',
    '"""What it is called."""',
    "A damaged file is refused.",
    "Colour, behaviour and normalisation.",
]


def hits(line):
    """Returns the phrases of a line that have a plainer wording, with that wording."""
    found = ((re.search(pattern, line), wording) for pattern, wording in SUGGESTIONS.items())
    return [(match[0], wording) for match, wording in found if match]


def text_of(path):
    """Yields line number and text of everything in a file that people read."""
    if path.suffix == ".py":
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                kind = tokenize.tok_name[token.type]
                prose = " " in token.string  # Else it is a key or a name.
                if path.parent == CLAIMS and kind != "COMMENT" and '"""' not in token.string:
                    continue
                if kind in ("STRING", "COMMENT", "FSTRING_MIDDLE") and prose:
                    for offset, line in enumerate(token.string.splitlines()):
                        yield (
                            token.start[0] + offset,
                            re.sub(r"`[^`]*`|\{[^}]*\}", "", line.strip()),
                        )
    elif path.suffix == ".yaml":
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield number, line.partition("#")[2]
    else:
        code = generated = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            generated = (
                generated and "<!-- The end of" not in line
            ) or "written by benchmarks" in line
            code = code != line.startswith("```")
            if not (code or generated):
                yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def files():
    for name in CHECKED:
        path = ROOT / name
        inside = sorted(file for file in path.rglob("*") if file.suffix in (".md", ".py", ".yaml"))
        kept = [file for file in inside if GENERATED not in file.parents]
        yield from kept if path.is_dir() else [path]


@pytest.mark.parametrize("path", list(files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_english(path):
    found = [
        f"{path.relative_to(ROOT)}:{number}: '{phrase}' -> {wording}"
        for number, line in text_of(path)
        for phrase, wording in hits(line)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("line", GOOD)
def test_good_english_passes(line):
    assert hits(line) == []


@pytest.mark.parametrize("line", BAD)
def test_bad_english_is_found(line):
    assert hits(line)
