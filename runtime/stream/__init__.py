"""From open sources to one answer for each frame: the loop of `finedge classify`.

A frame goes down this list:

- `stream.py`: a thread reads each source. A live source gives its newest frame, others every one.
- `slot.py`: hands one item from a thread to the next, and counts what is dropped.
- `pipeline.py`: prepares and infers in threads, side by side; its output is an `Answer`.
- `region.py`: the part of the frame that the model sees, without a finder.
- `decide.py`: smoothing over time and holding a label.
- `results.py`: an `Answer` becomes a `Result`, whose record is the JSON line, and is counted.
- `objects.py`: with a finder, `Detections` become a line for each thing, tracks and visits.
- `percentiles.py`: the ages of all frames of a run, in constant memory.
- `run.py`: the loop: every result and event goes to every sink.
- `shutdown.py`: how a run ends after a signal.
- `options.py`, `refusals.py`: options, and what excludes each other.
- `opening.py`: opens sources, classifier and pipeline.
- `command.py`: the command line around all of it.

It may import `sources`, `find`, `track`, `events`, `classifier` and `sinks` of the runtime.
`finedge.cli` calls the command; the benchmark's camera mode uses the pipeline.
"""
