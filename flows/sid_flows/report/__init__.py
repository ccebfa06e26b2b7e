"""`report.html`: one self-contained page that says whether the new IDs are good. It asks no network.

tables, vectors    what is read of a release, bounded
verdict ... gates  a file for each section, in the order of the page
markup, figures    HTML and plots, everything from data escaped
page, library      the document around them, with plotly.js packed inside
"""

from sid_flows.report.page import render

__all__ = ["render"]
