"""What was measured of a model, and the tables of a page that hold it."""
from dataclasses import dataclass

# Relative L2 that may be.
BOUNDS = {"encode": 1e-4, "decode": 1e-4, "latents": 5e-4}


@dataclass
class Row:
    """A model, what was done with it in words, and how far apart the two were, by the names of `BOUNDS`."""

    name: str
    words: list
    measured: dict

    def far(self):
        """Whether a value is above its bound, or is no number."""
        return any(not value <= BOUNDS[name] for name, value in self.measured.items())

    def cells(self):
        shown = {name: f"{value:.1e}" for name, value in self.measured.items()}
        values = [text if self.measured[name] <= BOUNDS[name] else f"**{text}**" for name, text in shown.items()]
        return [self.name, *self.words, *values]

    def __str__(self):
        values = ", ".join(f"{name} {value:.1e} of {BOUNDS[name]:.0e}" for name, value in self.measured.items())
        return f"{'FAR ' if self.far() else 'near'} {self.name}: {values}; {', '.join(self.words)}"


def relative_l2(ours, theirs):
    """‖ours − theirs‖ / ‖theirs‖; refuses what would say nothing."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert theirs.isfinite().all() and theirs.std() > 1e-3, "the reference's own values say nothing"
    ours, theirs = ours.double(), theirs.double()
    return ((ours - theirs).norm() / theirs.norm()).item()


def write(page, table, row):
    """Puts a row into the table behind the comment `<!-- TABLE -->`: over the one of its name, else at the end."""
    lines = page.read_text().splitlines()
    first = lines.index(f"<!-- {table} -->") + 3  # two lines of heading
    end = first
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    at = next((at for at in range(first, end) if lines[at].split("|")[1].strip() == row.name), end)
    lines[at : at + (at < end)] = [f"| {' | '.join(row.cells())} |"]
    page.write_text("\n".join(lines) + "\n")
