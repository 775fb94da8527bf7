"""What so many seeds and arms can show at all, known before anything is trained; without numpy, for the command line."""

ALPHA = 0.05
"""Level of the tests."""


def smallest_p(seeds: int, family: int) -> float:
    """What the exact sign-flip test of so many pairs reaches at the least, after Holm's correction over `family` arms."""
    return min(1.0, family * 2 / 2**seeds)


def seeds_needed(family: int, alpha: float = ALPHA) -> int:
    """The fewest seeds whose `smallest_p` is below `alpha`."""
    return next(seeds for seeds in range(1, 1000) if smallest_p(seeds, family) < alpha)


def reach(seeds: int, family: int) -> str:
    """A sentence: what the test can find with so many seeds and arms."""
    some = f"{seeds} seed{'s' * (seeds != 1)}"
    p = f"after Holm's correction over {family} arm{'s' * (family != 1)}, is {smallest_p(seeds, family):.3g}"
    if smallest_p(seeds, family) < ALPHA:
        return f"With {some} the smallest p this test can give, {p}."
    needed = seeds_needed(family)
    return f"With {some} this test cannot reach p < {ALPHA} (its smallest p, {p}); {needed} can."
