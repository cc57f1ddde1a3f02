"""report.json made readable: Markdown, and one self-contained HTML page with the accuracy-versus-latency picture."""
