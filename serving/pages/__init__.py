"""Pages for people: what providers deliver, and what was known when."""

from serving.pages.app import PagesApp, send_reply
from serving.pages.pages import Pages
from serving.pages.run import PagesSettings, serve_pages
from serving.pages.site import Site

__all__ = ["Pages", "PagesApp", "PagesSettings", "Site", "send_reply", "serve_pages"]
