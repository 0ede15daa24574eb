"""Snippets of code, found by their tokens, whatever the line breaks, spaces and comments.

A snippet belongs to a function, named as in `CMAES.tell` (a function within a function belongs to
the outer one), to the body of a class, or with the name "" to the module itself. It lies within one
statement, and its brackets match. Read `find` and `replace`, which list and plant the faults of
faults.py, then `closest` and `carry`, which look for the place that an edit has to move to when the
code has been rewritten.
"""

import ast
import difflib
import functools
import io
import itertools
import keyword
import tokenize
from typing import NamedTuple

CLOSER = {"(": ")", "[": "]", "{": "}"}
CLOSERS = list(CLOSER.values())
SIGNS = ["-", "+", "~", "*", "**"]
TIGHT = [*CLOSER, ".", "~"]
SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# Brackets around all that stands between two of these change nothing: formatters add them.
BEFORE = {None, "=", "return", "in", "if", "elif", "while", "assert", ",", "(", "[", "{", ":"}
AFTER = {None, "\n", ",", ")", "]", "}", ":"}


class Token(NamedTuple):
    text: str
    start: int  # where it begins in the text
    end: int


class Statement(NamedTuple):
    """A simple statement, or the first line of a compound one, however many lines it covers."""

    where: str  # the function or class that it belongs to
    tokens: list  # of Token
    kept: list  # the indices of those that count where code is looked for


class Place(NamedTuple):
    """Tokens first to last of a statement, both included."""

    statement: Statement
    first: int
    last: int


# --- From text to tokens ---
def tokens(text):
    """The Tokens of some code. An f-string is one token, the end of a statement is one, "\\n"."""
    lines = io.StringIO(text).readlines()
    offsets = [0, *itertools.accumulate(map(len, lines)), len(text)]
    start_of_f_string = getattr(tokenize, "FSTRING_START", None)  # from Python 3.12 on
    end_of_f_string = getattr(tokenize, "FSTRING_END", None)
    found = []
    opened = []  # where the f-strings begin that have not ended
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        start = offsets[token.start[0] - 1] + token.start[1]
        end = offsets[token.end[0] - 1] + token.end[1]
        if token.type == start_of_f_string:
            opened.append(start)
        elif token.type == end_of_f_string:
            start = opened.pop()
            if not opened:
                found.append(Token(text[start:end], start, end))
        elif token.type == tokenize.NEWLINE:
            found.append(Token("\n", start, end))
        elif token.type not in SKIPPED and not opened:
            found.append(Token(token.string, start, end))
    return found


def texts(some):
    return [token.text for token in some]


def snippet(code):
    """The texts of the tokens of a snippet. ValueError if its brackets do not match."""
    try:
        found = [text for text in texts(tokens(code.strip())) if text != "\n"]
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"{code!r} is no snippet: {error}") from error
    pairs(found)
    return found


def pairs(words):
    """{index of an opening bracket: index of its closer}. ValueError if they do not match."""
    closed = {}
    opened = []
    for i, word in enumerate(words):
        if word in CLOSER:
            opened.append(i)
        elif word in CLOSERS:
            if not opened or CLOSER[words[opened[-1]]] != word:
                raise ValueError(f"brackets do not match in {' '.join(words)!r}")
            closed[opened.pop()] = i
    if opened:
        raise ValueError(f"brackets do not match in {' '.join(words)!r}")
    return closed


def optional(words):
    """The indices of what a formatter may add: brackets around a value, commas before a closer.

    They do not count where code is looked for. What is planted keeps them, but for a pair of
    brackets of which only one was replaced.
    """
    closed = pairs(words)
    padded = [*words, None]  # so that -1 and len(words) are None
    found = {i for i, word in enumerate(words) if word == "," and padded[i + 1] in CLOSERS}
    for i, j in closed.items():
        within = words[i + 1 : j]
        whole = padded[i - 1] in BEFORE and padded[j + 1] in AFTER
        if words[i] == "(" and within and whole and not has_comma(within):
            found |= {i, j}
    return found


def essential(words):
    """The indices of all others."""
    skipped = optional(words)
    return [i for i in range(len(words)) if i not in skipped]


def has_comma(words):
    """Whether there is one outside of all brackets, as in a tuple."""
    depth = 0
    for word in words:
        depth += (word in CLOSER) - (word in CLOSERS)
        if word == "," and depth == 0:
            return True
    return False


# --- From tokens to statements ---
def owners(text):
    """{line number: qualified name of the function or class}, of the lines that belong to one."""
    found = {}

    def visit(body, prefix):
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = prefix + node.name
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found.update(dict.fromkeys(range(first, node.end_lineno + 1), name))
                if isinstance(node, ast.ClassDef):
                    visit(node.body, name + ".")

    visit(ast.parse(text).body, "")
    return found


@functools.lru_cache(maxsize=64)
def statements(text):
    """Every Statement of a module, in order."""
    owner = owners(text)
    found = []
    current = []
    for token in tokens(text):
        if token.text != "\n":
            current.append(token)
        elif current:
            line = text.count("\n", 0, current[0].start) + 1
            found.append(Statement(owner.get(line, ""), current, essential(texts(current))))
            current = []
    return found


def spelled(words):
    """The texts of tokens as one line of code."""
    line = ""
    depth = 0
    for i, word in enumerate(words):
        depth -= word in CLOSERS
        line += gap(words[max(0, i - 2) : i], word, depth) + word
        depth += word in CLOSER
    return line


def gap(before, word, depth):
    """A space or none, between two tokens and the next, which is within so many brackets."""
    last = before[-1] if before else None
    keyword_argument = depth > 0 and "=" in (word, last)
    signed = last in SIGNS and (len(before) == 1 or not is_operand(before[-2]))
    applied = word in ("(", "[") and is_operand(last)
    tight = last is None or last in TIGHT or word in [".", ",", *CLOSERS]
    tight = tight or (word == ":" and last != ",")
    return "" if tight or keyword_argument or signed or applied else " "


def is_operand(word):
    """Whether it is, or ends, a value: a name, a number, a string, a bracket that closes."""
    if word is None or keyword.iskeyword(word):
        return False
    return word in CLOSERS or word[0].isalnum() or word[0] in "_\"'"


def is_name(word):
    return word.isidentifier() and not keyword.iskeyword(word)


# --- Found and replaced ---
def find(text, where, code):
    """Every Place of the module where the function `where` has this snippet."""
    wanted = snippet(code)
    wanted = [wanted[i] for i in essential(wanted)]
    n = len(wanted)
    found = []
    for statement in statements(text):
        if statement.where != where:
            continue
        kept = statement.kept
        words = [statement.tokens[i].text for i in kept]
        for k in range(len(kept) - n + 1):
            if words[k : k + n] == wanted:
                found.append(Place(statement, kept[k], kept[k + n - 1]))
    return found


def replace(text, place, new):
    """The module with the code `new` in this place.

    The statement is written on one line, and a bracket that a formatter added to it goes if only
    one of its two ends is replaced.
    """
    some = place.statement.tokens
    _, first, last = place
    words = texts(some)
    gone = set(range(first, last + 1))
    for pair in pairs(words).items():
        if gone.intersection(pair):
            gone.update(pair)
    before = [word for i, word in enumerate(words[:first]) if i not in gone]
    after = [word for i, word in enumerate(words) if i > last and i not in gone]
    line = spelled([*before, *snippet(new), *after])
    return text[: some[0].start] + line + text[some[-1].end :]


def grown(text, place):
    """The smallest Place around this one whose brackets match and that its function has only once.

    None if the statement as a whole occurs twice.
    """
    statement, first, last = place
    words = texts(statement.tokens)
    for turn in itertools.count():
        first, last = with_whole_brackets(words, first, last)
        code = spelled(words[first : last + 1])
        if len(find(text, statement.where, code)) == 1:
            return Place(statement, first, last)
        if first == 0 and last == len(words) - 1:
            return None
        if (turn % 2 and first > 0) or last == len(words) - 1:
            first -= 1
        else:
            last += 1


def with_whole_brackets(words, first, last):
    """The smallest range of indices around this one that has both or neither of two brackets.

    Where it begins with the arguments of a function, the name of that comes with them.
    """
    closed = pairs(words)
    before = None
    while before != (first, last):
        before = first, last
        for i, j in closed.items():
            if (first <= i <= last) != (first <= j <= last):
                first, last = min(first, i), max(last, j)
        while first > 0 and begins_within(words[first - 1], words[first]):
            first -= 1
    return first, last


def begins_within(before, word):
    """Whether a snippet from `word` on would lack the name of a function, an array or an object."""
    applied = word in (".", "(", "[") and (is_name(before) or before in (")", "]"))
    return before == "." or applied


# --- Where it may have gone ---
def likeness(one, other):
    """How much of two snippets is the same in the same order, 0 to 1."""
    return difflib.SequenceMatcher(None, snippet(one), snippet(other), autojunk=False).ratio()


def closest(code, statement):
    """(how much of the snippet, 0 to 1, the statement has in the same order, the Place)."""
    wanted = snippet(code)
    words = texts(statement.tokens)
    matcher = difflib.SequenceMatcher(None, wanted, words, autojunk=False)
    seed = matcher.find_longest_match()
    if not seed.size:
        return 0.0, Place(statement, 0, len(words) - 1)
    slack = 2 + len(wanted) // 2  # a row of a table is compared, not all of it
    low = max(0, seed.b - seed.a - slack)
    high = min(len(words), seed.b - seed.a + len(wanted) + slack)
    matcher.set_seq2(words[low:high])
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    score = sum(block.size for block in blocks) / len(wanted)
    first = low + blocks[0].b
    last = low + blocks[-1].b + blocks[-1].size - 1
    scattered = max(1.0, (last - first + 1) / len(wanted))
    return score / scattered**0.5, Place(statement, first, last)


def aligned(old, words):
    """{index in old: index in words} of what is the same but for names, and {name: other name}."""
    image = {}
    renamed = {}
    matcher = difflib.SequenceMatcher(None, old, words, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            image.update(zip(range(i1, i2), range(j1, j2), strict=True))
        if tag == "replace":
            for i, j in counterparts(range(i1, i2), range(j1, j2), len(old)):
                if is_name(old[i]) and is_name(words[j]):
                    image[i] = j
                    renamed[old[i]] = words[j]
    return image, renamed


def counterparts(one, other, n):
    """Pairs of indices from two ranges that belong together, of which the first is in range(n).

    Ranges of two lengths do where they are at an end: what comes before or after is no part of it.
    """
    if len(one) != len(other) and one.start == 0:
        return zip(reversed(one), reversed(other), strict=False)
    if len(one) != len(other) and one.stop < n:
        return ()
    return zip(one, other, strict=False)


def edits(old, new):
    """The (first, stop, words) of new in place of old[first:stop], from the last to the first."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    changes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    return [(i1, i2, new[j1:j2]) for _, i1, i2, j1, j2 in reversed(changes)]


def carry(text, old, new, place):
    """(the Place, the code that it is replaced with): the edit old -> new, made at another place.

    Tokens that have only another name there are taken for the same. None where what is replaced
    has no counterpart, or the statement occurs twice.
    """
    old_words = snippet(old)
    some = place.statement.tokens
    low = max(0, place.first - 4)
    high = min(len(some), place.last + 5)
    image, renamed = aligned(old_words, texts(some[low:high]))
    changes = []
    for first, stop, words in edits(old_words, snippet(new)):
        span = counterpart(image, first, stop)
        if span is None:
            return None
        words = [renamed.get(word, word) for word in words]
        changes.append((low + span[0], low + span[1], words))
    start = min([*changes[-1][:1], *(low + j for j in image.values())])
    end = max([changes[0][1] - 1, *(low + j for j in image.values())])
    around = grown(text, Place(place.statement, start, end))
    if around is None:
        return None
    return around, edited(around, changes)


def counterpart(image, first, stop):
    """(first, stop) of what old[first:stop] has become; None if it is not there side by side."""
    if first < stop:
        found = [image.get(i) for i in range(first, stop)]
        side_by_side = None not in found and found[-1] - found[0] == stop - first - 1
        return (found[0], found[-1] + 1) if side_by_side else None
    if first - 1 in image:
        return image[first - 1] + 1, image[first - 1] + 1
    if first in image:
        return image[first], image[first]
    return None


def edited(place, changes):
    """The code of the place after these changes, (first, stop, words), the last of them first."""
    words = texts(place.statement.tokens)
    end = place.last + 1
    for first, stop, others in changes:
        words[first:stop] = others
        end += len(others) - (stop - first)
    return spelled(words[place.first : end])


def code_of(place):
    """The snippet that is in this place."""
    return spelled(texts(place.statement.tokens[place.first : place.last + 1]))
