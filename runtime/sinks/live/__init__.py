"""The live page of `finedge classify --serve`: the newest frame and its answer in any browser.

- `page.py`: the sink. It takes results and starts the server.
- `state.py` and `camera.py`: all that the page shows, by camera.
- `routes.py`: what the server answers.
- `access.py`: the address, and who may see the page.
- `server.py`: a web server that no client can block.
- `page.html`: the page itself.

It may import `finedge.runtime.sinks.base` and `finedge.runtime.telemetry`. The table of
`finedge.runtime.sinks` opens it.
"""

from finedge.runtime.sinks.live.page import LivePage

__all__ = ["LivePage"]
