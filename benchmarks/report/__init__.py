"""The report: figures put together, charts and the HTML page."""
