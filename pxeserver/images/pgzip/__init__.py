"""LinuxKit's very gzip bytes, for `--strict` outputs that hold one compressed file inside another.

LinuxKit compresses with klauspost/pgzip at its default level over klauspost/compress 1.20 (BSD-3-Clause); whoever
compares digests of such an output needs the same matches, the same Huffman tables and the same block borders. Other
outputs use `images/compress.py`, which is faster by two orders of magnitude.
"""

from pxeserver.images.pgzip.stream import compress

__all__ = ["compress"]
