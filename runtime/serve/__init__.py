"""Answers over HTTP: who may ask, what a picture is answered, and a server that nobody can block.

- `access.py`: the address, and who may ask.
- `server.py` and `connections.py`: uvicorn in a thread, with bounded connections and deadlines.
- `app.py` and `answers.py`: the application, its headers and its errors.
- `classify.py`, `body.py` and `rate.py`: `POST /classify`, the picture in a request, its limits.
- `batcher.py`: pictures of several requests as one batch.
- `share.py`: one session for a camera and for requests.
- `command.py`: `finedge serve`.

It needs the extra `[serve]`, but for `access.py` and `share.py`. It may import `classifier`,
`sources` and `stream` of the runtime. The live page (`finedge.runtime.sinks.live`) serves its own
routes with it.
"""
