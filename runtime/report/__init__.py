"""report.json for people: Markdown, and one HTML page with a plot of accuracy and latency."""
