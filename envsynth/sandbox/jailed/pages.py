"""What a database image has that another one has not: of most final images nothing travels, of the others few pages.

The worker tells the differences, the host puts them into the image that it has. Pages are of one size here, whatever
SQLite's are.
"""

from __future__ import annotations

PAGE = 4096
"""Bytes that travel when one of them changed."""


def changed_pages(base: bytes, image: bytes) -> tuple[list[int], bytes]:
    """Compare images.

    Args:
        base: What the host has.
        image: What it shall have.

    Returns:
        Numbers of the pages of `image` that `base` has not, ascending, and these pages one after another.
    """
    starts = range(0, len(image), PAGE)
    changed = [start for start in starts if image[start : start + PAGE] != base[start : start + PAGE]]
    return [start // PAGE for start in changed], b"".join([image[start : start + PAGE] for start in changed])


def with_pages(base: bytes, size: int, numbers: list[int], pages: bytes) -> bytes:
    """Put changed pages into an image; all but `base` may be forged.

    Args:
        base: The image that the pages were compared with.
        size: Bytes of the changed image.
        numbers: From `changed_pages`.
        pages: From `changed_pages`.

    Returns:
        The changed image, not larger than `base` and `pages` together; `base` itself when nothing changed.

    Raises:
        ValueError: These are no pages of an image of that size.
    """
    if size == len(base) and not numbers and not pages:
        return base
    parts: list[bytes] = []
    done = taken = 0
    for number in numbers:
        start = number * PAGE
        if not done <= start < size:
            raise ValueError(f"page {number} is out of order, or outside of {size} bytes")
        length = min(PAGE, size - start)
        parts += (base[done:start], pages[taken : taken + length])
        done, taken = start + length, taken + length
    parts.append(base[done : max(done, size)])
    made = b"".join(parts)
    if len(made) != size or taken != len(pages):
        raise ValueError(f"the pages are not those of an image of {size} bytes")
    return made
