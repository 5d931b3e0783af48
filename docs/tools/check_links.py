#!/usr/bin/env python3
"""Checks the relative links and anchors of all Markdown files that git tracks.

    python3 docs/tools/check_links.py [ROOT]

Prints `FILE:LINE: message` for each broken link and exits with 1 if there is one. Links to other sites are not opened.
Python's standard library only.
"""
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
TARGET = r"(?:<([^<>]*)>|([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*))"
INLINE = re.compile(r"\]\(\s*" + TARGET + r"(?:\s+(?:\"[^\"]*\"|'[^']*'|\([^)]*\)))?\s*\)")
DEFINITION = re.compile(r" {0,3}\[([^\]]+)\]:\s*" + TARGET)
REFERENCE = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]*)\]")
ATTRIBUTE = re.compile(r"<(?:a|img|source|link)\b[^>]*?\s(?:href|src|srcset)\s*=\s*[\"']([^\"']+)[\"']", re.I)
ANCHOR = re.compile(r"<[a-z]+\b[^>]*?\s(?:id|name)\s*=\s*[\"']([^\"']+)[\"']", re.I)
HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")
CUSTOM_ID = re.compile(r"\s*\{#([^}\s]+)[^}]*\}$")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.I)


def lines(text):
    """Number and text of each line outside code blocks and comments."""
    text = re.sub(r"<!--.*?-->", lambda match: "\n" * match.group().count("\n"), text, flags=re.S)
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence:
            if match and match.group(1)[0] == fence[0] and len(match.group(1)) >= len(fence) and not line.strip(" `~"):
                fence = None
            continue
        if match and not (match.group(1)[0] == "`" and "`" in line[match.end():]):
            fence = match.group(1)
            continue
        yield number, line


def slug(heading):
    """The anchor GitHub gives a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]+>", "", text).replace("`", "").replace("*", "").strip().lower()
    keep = lambda character: character in "-_ " or unicodedata.category(character)[0] in "LNM"
    return "".join(filter(keep, text)).replace(" ", "-")


def anchors(path, cache={}):
    """All anchors of a Markdown file."""
    if path not in cache:
        found, counts, before = set(), {}, ""
        for _, line in lines(path.read_text(encoding="utf-8")):
            found.update(ANCHOR.findall(line))
            match = HEADING.match(line)
            heading = match.group(2) if match else before if re.fullmatch(r" {0,3}(=+|-+)\s*", line) and before else None
            before = "" if match or line.lstrip()[:1] in ("|", ">", "-", "#", "") else line.strip()
            if heading is None:
                continue
            custom = CUSTOM_ID.search(heading)
            if custom:
                found.add(custom.group(1))
                heading = heading[:custom.start()]
            name = slug(heading)
            count = counts.get(name, 0)
            counts[name] = count + 1
            found.add(f"{name}-{count}" if count else name)
        cache[path] = found
    return cache[path]


def targets(text):
    """Line number and target of each link; the target is `None` for a reference without a definition."""
    plain = [(number, CODE.sub(lambda match: " " * len(match.group()), line)) for number, line in lines(text)]
    defined = {match.group(1).strip().lower() for _, line in plain if (match := DEFINITION.match(line))}
    joined, starts = "", []
    for number, line in plain:
        starts.append((len(joined), number))
        joined += line + "\n"
    at = lambda position: max(number for start, number in starts if start <= position) if starts else 1
    for pattern in (INLINE, ATTRIBUTE):
        for match in pattern.finditer(joined):
            yield at(match.start()), next((group for group in match.groups() if group), "")
    for number, line in plain:
        match = DEFINITION.match(line)
        if match and not match.group(1).startswith("^"):
            yield number, match.group(2) or match.group(3) or ""
        for match in REFERENCE.finditer(line):
            name = (match.group(2) or match.group(1)).strip().lower()
            if match.group(2) and name not in defined:
                yield number, None


def check(root, path):
    """Line number and message of each broken link of a file."""
    for number, target in targets(path.read_text(encoding="utf-8")):
        if target is None:
            yield number, "link reference without a definition"
            continue
        if SCHEME.match(target):
            continue
        place, _, anchor = target.partition("#")
        place = unquote(place.partition("?")[0])
        if not target:
            yield number, "empty link"
            continue
        if place.startswith("/"):
            yield number, f"{target}: expected a relative path, got an absolute one"
            continue
        file = (path.parent / place).resolve() if place else path
        if root not in (file, *file.parents):
            yield number, f"{target}: outside the repository"
        elif not file.exists():
            yield number, f"{target}: no such file"
        elif anchor and file.suffix == ".md" and unquote(anchor) not in anchors(file):
            yield number, f"{target}: no such anchor"


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]).resolve()
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard",
                             "--", "*.md"], capture_output=True, text=True, check=True).stdout
    files = [root / name for name in sorted(set(listed.split("\0"))) if name and (root / name).is_file()]
    broken = 0
    for path in files:
        for number, message in sorted(check(root, path)):
            print(f"{path.relative_to(root)}:{number}: {message}")
            broken += 1
    print(f"{len(files)} Markdown files, {broken} broken links", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
