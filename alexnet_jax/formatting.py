"""Durations, sizes, percentages and tables as text, for every report and every line on the terminal."""

from collections.abc import Collection, Sequence

MISSING = "not known"


def duration(seconds: float | None) -> str:
    """Return a measured duration: "95.0 s", "30.5 min" or "2 h 7 min"; None is reported as missing."""
    if seconds is None:
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def estimated_duration(seconds: float) -> str:
    """Return a predicted duration in words, without more digits than a prediction has: "57 minutes", "1.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def countdown(seconds: float) -> str:
    """Return the remaining time as on a clock: "0:54" or "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def size(number: float) -> str:
    """Return a number of bytes of memory or disk: "512.0 MiB" or "1.5 GiB"."""
    return f"{number / 2**30:,.1f} GiB" if number >= 2**29 else f"{number / 2**20:,.1f} MiB"


def megabytes(number: float, digits: int = 3, zero: str = "-") -> str:
    """Return a number of bytes in units of 10^6 bytes, for the cells of a table whose heading names the unit."""
    return f"{number / 1e6:,.{digits}f}" if number else zero


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction of 1 in per cent: "11.94 %"; None is reported as missing."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return a Markdown table. Columns whose index is in `right` are aligned to the right.

    Line breaks and vertical bars in a cell, which would end it, are replaced by spaces and escaped.
    """
    rule = ["---:" if column in right else "---" for column in range(len(heads))]
    lines = [heads, rule, *([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text_table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return rows of text in aligned columns. Columns whose index is in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [cell.rjust(width) if column in right else cell.ljust(width) for column, (cell, width) in enumerate(cells)]
        for cells in (zip(row, widths, strict=True) for row in rows)
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)
