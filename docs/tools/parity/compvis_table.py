"""Measured rows, and the tables of a Markdown page that hold them."""
from dataclasses import dataclass

# Largest relative L2 distance that passes.
BOUNDS = {"encode": 1e-4, "decode": 1e-4, "latents": 5e-4}


@dataclass
class Row:
    """A model, the cells that describe the run, and the distances by the names of `BOUNDS`."""

    name: str
    description: list
    measured: dict

    def far(self):
        """True if a value is above its bound or NaN."""
        return any(not value <= BOUNDS[name] for name, value in self.measured.items())

    def cells(self):
        shown = {name: f"{value:.1e}" for name, value in self.measured.items()}
        values = [text if self.measured[name] <= BOUNDS[name] else f"**{text}**" for name, text in shown.items()]
        return [self.name, *self.description, *values]

    def __str__(self):
        values = ", ".join(f"{name} {value:.1e} (bound {BOUNDS[name]:.0e})" for name, value in self.measured.items())
        return f"{'FAIL' if self.far() else 'ok  '} {self.name}: {values}; {', '.join(self.description)}"


def relative_l2(ours, theirs):
    """‖ours − theirs‖ / ‖theirs‖; fails on values that prove nothing."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    assert theirs.isfinite().all() and theirs.std() > 1e-3, "CompVis' values are constant, NaN or Inf"
    ours, theirs = ours.double(), theirs.double()
    return ((ours - theirs).norm() / theirs.norm()).item()


def write(page, table, row):
    """Writes a row into the table after the comment `<!-- TABLE -->`: replaces the row of its name, or appends."""
    lines = page.read_text().splitlines()
    first = lines.index(f"<!-- {table} -->") + 3  # two heading lines
    end = first
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    at = next((at for at in range(first, end) if lines[at].split("|")[1].strip() == row.name), end)
    lines[at : at + (at < end)] = [f"| {' | '.join(row.cells())} |"]
    page.write_text("\n".join(lines) + "\n")
