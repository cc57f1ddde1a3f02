"""Pieces of the HTML pages: the template environment, the style, pictures, axes.

A page is one file without scripts and without outside assets. jinja2 escapes every text. It is in
the extra [report]: `extra.py` checks it. The report, the sheet of `explain`, and the page of
the confused classes (`answers.py`) use these pieces.
"""
