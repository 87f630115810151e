"""A page over the folder of all runs, served while they train or written to one file.

records.py reads the folders, answers.py computes what is looked at, html.py makes the page, server.py serves it. The
table is DataTables, from itables; the figures are those of the report, drawn by plotly; the server is aiohttp. The
views are plain JavaScript: dashboard frameworks take seconds to start and cannot be written to one file.
"""
