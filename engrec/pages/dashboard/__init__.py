"""A page over the folder of all runs, served while they go on or written to one file.

folders.py reads what runs leave, details.py computes what is looked at, pages.py makes the page, server.py serves it.
The table is DataTables, as itables carries it; the plots are plotly's; the server is aiohttp's. The views are ours, in
plain JavaScript, since dashboard frameworks take seconds to start and cannot be written to one file.
"""
