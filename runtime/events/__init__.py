"""Visits: one thing that came, stayed and left; and where they are reported.

- `event.py`: the start or the end of a visit, and its JSON line.
- `visits.py`: from tracks to events. `coarser.py`: the group of classes where no class is sure.
- `sinks.py`: the table of all that takes events; `outputs.py` has its options.
- `notice.py`: an event as the sinks keep it. `outbox.py`: a queue and a thread that tries again.
- `store.py`: an SQLite file; `stored.py` checks what is read of one.
- `listing.py`, `command.py`, `show.py`: `finedge events`.
- `mqtt.py`: a broker. `mqtt_address.py`, `camera_state.py`, `home_assistant.py` belong to it.
- `webhook.py`: signed requests. `metrics.py`: counts for Prometheus.
- `clips.py`: crops and videos. `ring.py`: the frames before a visit.

It may import `sources` and `sinks` of the runtime. `finedge.runtime.stream.run` opens the
sinks, and shows them every result and every event.
"""
