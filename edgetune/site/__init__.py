"""Build a static page that classifies in the browser."""

from edgetune.site.build import Site, build_site

__all__ = ["Site", "build_site"]
