def scaled(count: int, scale: float, *, least: int = 1) -> int:
    """This count at scale 1, and less below it: for a try at a size that decides nothing."""
    return max(least, round(scale * count))
