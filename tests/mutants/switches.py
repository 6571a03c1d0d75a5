"""Writes every mutant of a sample into one copy of the sources, each behind a switch.

cargo-mutants lists the mutants. Its own way builds the crate once for each mutant, which takes hours.
Here each changed expression becomes `if mutant(N) { changed } else { original }`, so one build serves
the whole sample, and the variable DEVID_MUTANT chooses the mutant of a process. tree-sitter finds the
operands of an operator."""

from dataclasses import dataclass

# Appended to the library that both crates see.
SWITCH = """
/// True if this process runs the mutant of this number.
#[doc(hidden)]
pub fn mutant(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let chosen = || std::env::var("DEVID_MUTANT").ok().and_then(|text| text.parse().ok());
    *CHOSEN.get_or_init(|| chosen().unwrap_or(0)) == number
}
"""


class NoSwitch(Exception):
    """The mutant cannot stand behind a switch."""


@dataclass
class Mutant:
    """A mutant as cargo-mutants lists it, and its number in the sample."""
    number: int
    file: str
    genre: str
    replacement: str
    start: tuple
    end: tuple
    body: tuple | None

    @staticmethod
    def of(number, listed):
        def place(point):
            return point["line"] - 1, point["column"] - 1
        function = listed.get("function") or {}
        span = function.get("span")
        return Mutant(number, listed["file"], listed["genre"], listed["replacement"],
                      place(listed["span"]["start"]), place(listed["span"]["end"]),
                      span and (place(span["start"]), place(span["end"])))


@dataclass
class Edit:
    """What a mutant changes: the bytes of a node, and how."""
    mutant: Mutant
    start: int
    end: int
    # For operators: the operands.
    left: tuple | None = None
    right: tuple | None = None
    prefix: str = ""


class File:
    """One source file with its tree."""

    def __init__(self, text, switch):
        import tree_sitter
        import tree_sitter_rust
        self.text = text.encode()
        self.switch = switch
        language = tree_sitter.Language(tree_sitter_rust.language())
        self.tree = tree_sitter.Parser(language).parse(self.text)
        self.lines = [0]
        for number, byte in enumerate(self.text):
            if byte == 10:
                self.lines.append(number + 1)

    def byte(self, point):
        """The offset of a line and a column; a column counts characters."""
        line, column = point
        start = self.lines[line]
        end = self.lines[line + 1] if line + 1 < len(self.lines) else len(self.text)
        return start + len(self.text[start:end].decode()[:column].encode())

    def nodes(self, *kinds):
        found, open_nodes = [], [self.tree.root_node]
        while open_nodes:
            node = open_nodes.pop()
            if node.type in kinds:
                found.append(node)
            open_nodes.extend(node.children)
        return found

    def is_constant(self, node):
        """True if the compiler evaluates the node: no switch can stand there."""
        while node:
            if node.type in ("const_item", "static_item", "array_type"):
                return True
            if node.type == "function_item":
                head = self.text[node.start_byte:node.child_by_field_name("body").start_byte]
                return b"const fn" in head
            node = node.parent
        return False

    def edit(self, mutant):
        """Where the switch of a mutant stands."""
        start, end = self.byte(mutant.start), self.byte(mutant.end)
        edit = getattr(self, "edit_" + mutant.genre, None)
        if edit is None:
            raise NoSwitch(mutant.genre)
        return edit(mutant, start, end)

    def edit_FnValue(self, mutant, start, end):
        for node in self.nodes("function_item"):
            body = node.child_by_field_name("body")
            if node.start_byte <= start and end <= node.end_byte and body and start >= body.start_byte:
                if self.is_constant(body):
                    raise NoSwitch("const fn")
                inner = [child for child in self.nodes("function_item")
                         if node.start_byte < child.start_byte and child.end_byte <= node.end_byte
                         and child.start_byte <= start < child.end_byte]
                if not inner:
                    return Edit(mutant, body.start_byte + 1, body.start_byte + 1)
        raise NoSwitch("no body")

    def edit_BinaryOperator(self, mutant, start, end):
        for node in self.nodes("binary_expression", "compound_assignment_expr"):
            operator = node.child_by_field_name("operator")
            if operator.start_byte == start and operator.end_byte == end:
                if self.is_constant(node):
                    raise NoSwitch("constant")
                left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
                return Edit(mutant, node.start_byte, node.end_byte,
                            (left.start_byte, left.end_byte), (right.start_byte, right.end_byte))
        raise NoSwitch("no operator")

    def edit_UnaryOperator(self, mutant, start, end):
        for node in self.nodes("unary_expression"):
            if node.start_byte == start:
                if self.is_constant(node):
                    raise NoSwitch("constant")
                operand = node.children[-1]
                return Edit(mutant, node.start_byte, node.end_byte,
                            right=(operand.start_byte, operand.end_byte))
        raise NoSwitch("no operator")

    def edit_MatchArmGuard(self, mutant, start, end):
        for node in self.nodes("match_pattern"):
            guard = node.child_by_field_name("condition")
            if guard and guard.start_byte == start:
                return Edit(mutant, guard.start_byte, guard.end_byte)
        raise NoSwitch("no guard")

    def edit_MatchArm(self, mutant, start, end):
        for node in self.nodes("match_arm"):
            pattern = node.child_by_field_name("pattern")
            if start <= pattern.start_byte < end and node.start_byte <= pattern.start_byte and \
                    abs(node.end_byte - end) <= 1:
                guard = pattern.child_by_field_name("condition")
                if guard:
                    return Edit(mutant, guard.start_byte, guard.end_byte)
                return Edit(mutant, pattern.end_byte, pattern.end_byte, prefix="arm")
        raise NoSwitch("no arm")

    def edit_StructField(self, mutant, start, end):
        for node in self.nodes("field_initializer", "shorthand_field_initializer"):
            if node.start_byte == start:
                base = [child for child in node.parent.children if child.type == "base_field_initializer"]
                whole = self.text[base[0].start_byte + 2:base[0].end_byte].decode()
                name = node.child_by_field_name("field") or node.children[0]
                value = node.child_by_field_name("value") or name
                field = self.text[name.start_byte:name.end_byte].decode()
                edit = Edit(mutant, value.start_byte, value.end_byte, prefix=f"({whole}).{field}")
                if node.type == "shorthand_field_initializer":
                    edit.prefix = f"shorthand {field}: {edit.prefix}"
                return edit
        raise NoSwitch("no field")

    def changed(self, mutant):
        """The text with this mutant, without a switch."""
        start, end = self.byte(mutant.start), self.byte(mutant.end)
        return self.text[:start] + mutant.replacement.encode() + self.text[end:]

    def written(self, edits):
        """The text with the switches of these edits."""
        return self.render(0, len(self.text), edits).decode()

    def render(self, start, end, edits):
        inside = [edit for edit in edits if start <= edit.start and edit.end <= end]
        inside.sort(key=lambda edit: (edit.start, -edit.end))
        out, at = b"", start
        while inside:
            first = inside[0]
            group = [edit for edit in inside if (edit.start, edit.end) == (first.start, first.end)]
            within = [edit for edit in inside if edit not in group and edit.end <= first.end
                      and edit.start >= first.start and first.end > first.start]
            out += self.text[at:first.start] + self.group(group, within)
            at = first.end
            inside = [edit for edit in inside if edit not in group and edit not in within]
        return out + self.text[at:end]

    def group(self, group, within):
        first = group[0]
        original = self.render(first.start, first.end, within)
        out, braces = b"", b""
        for edit in group:
            number = f"{self.switch}({edit.mutant.number})".encode()
            new = edit.mutant.replacement.encode()
            if edit.mutant.genre == "FnValue":
                out += b" if %s { return %s; } " % (number, new)
                continue
            if edit.prefix == "arm":
                return b" if !%s " % number
            if edit.mutant.genre == "MatchArm":
                changed = b"false"
            elif edit.mutant.genre == "MatchArmGuard":
                changed = new
            elif edit.mutant.genre == "StructField":
                changed = edit.prefix.rpartition(": ")[2].encode()
            elif edit.left:
                left = self.render(*edit.left, within)
                changed = left + b" " + new + b" " + self.render(*edit.right, within)
            else:
                changed = new + self.render(*edit.right, within)
            out += b"if %s { %s } else { " % (number, changed)
            braces += b" }"
        if first.mutant.genre == "FnValue":
            return out
        # A statement stays a statement without parentheses.
        whole = out + original + braces
        if not first.left or not first.mutant.replacement.endswith("=") or \
                first.mutant.replacement in ("==", "!=", "<=", ">="):
            whole = b"(" + whole + b")"
        if first.prefix.startswith("shorthand "):
            whole = first.prefix.split()[1].encode() + b" " + whole
        return whole
