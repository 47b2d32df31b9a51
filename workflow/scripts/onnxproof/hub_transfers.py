"""What is asked of every answer of the Hub: that it keeps flowing, that it ends, and that no byte is lost.

The Hub's client reads bodies in chunks of ten megabytes. A connection cut inside a chunk loses what the chunk
held, a server that drips a byte now and then holds a job for ever, and one that never stops fills the disk.
"""

import time
from collections.abc import Iterator
from typing import Any

import requests
from huggingface_hub import configure_http_backend, constants

READ_BYTES = 1 << 20
#: Slower than this is no download: a gigabyte would take eleven days.
LEAST_BYTES_PER_SECOND = 1_000
#: Listings are read into memory; the longest known ones have a few megabytes.
MOST_LISTING_BYTES = 50_000_000


class SlowTransferError(requests.exceptions.ChunkedEncodingError):
    """An answer came too slowly: worth another try, which resumes it."""


class OverlongAnswerError(OSError):
    """An answer has more bytes than were announced: trying again would not help."""


class Transfers:
    """Watches over the answers of the Hub's client, of which it becomes the HTTP backend.

    ``file_bytes`` is the size of the file that is fetched next: no answer for it may be longer. ``window_s`` is
    the time in which an answer may fall below the least rate.
    """

    def __init__(self, window_s: float) -> None:
        """Make the client use this watch, and plain HTTP alone: Xet's protocol would pass it by."""
        self.window_s = window_s
        self.file_bytes = 0
        constants.HF_HUB_DISABLE_XET = True
        configure_http_backend(self._open_session)

    def _open_session(self) -> requests.Session:
        session = requests.Session()
        session.hooks["response"].append(self._watch)
        return session

    def _watch(self, response: requests.Response, stream: bool = False, **_settings: Any) -> None:
        """Replace how a body is read; requests still translates the errors."""
        most = self.file_bytes if stream else MOST_LISTING_BYTES
        raw = response.raw
        raw.stream = lambda *_arguments, **_options: self._read(raw, most)

    def _read(self, raw: Any, most: int) -> Iterator[bytes]:
        """Yield what arrives as it arrives.

        Raises:
            SlowTransferError: the rate stayed below the least one for a whole window.
            OverlongAnswerError: more than ``most`` bytes came.
        """
        total = in_window = 0
        window_began = time.monotonic()
        while part := raw.read1(READ_BYTES, decode_content=True):
            total += len(part)
            if total > most:
                raise OverlongAnswerError(f"more than the expected {most} bytes")
            yield part
            in_window += len(part)
            elapsed = time.monotonic() - window_began
            if elapsed >= self.window_s:
                if in_window < LEAST_BYTES_PER_SECOND * elapsed:
                    raise SlowTransferError(f"{in_window} bytes in {elapsed:.0f} s")
                in_window, window_began = 0, time.monotonic()
