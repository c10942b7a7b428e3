"""Numba's compiler, with compiled code kept between processes wherever there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit`, without the GIL and with numba's cache, `options` beside.

    Numba keeps what it compiled in NUMBA_CACHE_DIR, in the __pycache__ beside the source, or in the user's cache folder, and
    gives up at import where it can write to none of them, as in a read-only image. There, every process compiles for itself.
    No folder for temporary files is taken instead: what lies in the cache is run, and others may write there.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return njit(nogil=True, **options)(function)

    return decorate
