"""The live page of `finedge classify --serve`: the newest frame and its answer in any browser.

- `page.py`: the sink. It takes results and starts the server.
- `state.py` and `camera.py`: all that the page shows, by camera.
- `visits.py`: the newest visits, with their crops; `today.py`: how many began today; `archive.py`:
  what the store keeps of them.
- `attention.py`: a crop with the model's attention over it.
- `routes.py`: what the server answers.
- `page.html`, `page.css`, and its script, in this order: `page.js`, `numbers.js`, `timeline.js`.

It may import `finedge.runtime.sinks.base`, `finedge.runtime.telemetry`, `finedge.runtime.events`
(events, counts, the listing of a store), `finedge.runtime.explain` (the attention) and
`finedge.runtime.serve`, which serves it and needs the extra `[serve]`. The table of
`finedge.runtime.sinks` opens it.
"""
