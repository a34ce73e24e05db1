"""One bundle's evidence as one HTML file that opens offline: `edgepack report`."""

from edgepack.bench.page.page import render_page

__all__ = ["render_page"]
