"""What INT8 of one layer costs: the layers of a model, ranked.

`measure` runs the float model with one unit in INT8 after another; `plot` draws the ranking;
`command` is `finedge sensitivity`. `finedge.calib.search` takes its order from here.
"""
