"""The live page of `finedge classify --serve`: the newest frame and its answer in any browser.

- `page.py`: the sink. It takes results and starts the server.
- `state.py` and `camera.py`: all that the page shows, by camera.
- `visits.py`: the newest visits, with their crops and counts.
- `routes.py`: what the server answers.
- `page.html`: the page itself.

It may import `finedge.runtime.sinks.base`, `finedge.runtime.telemetry` and `finedge.runtime.serve`,
which serves it and needs the extra `[serve]`. The table of
`finedge.runtime.sinks` opens it.
"""
