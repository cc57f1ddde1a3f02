"""Which classes a classifier confuses: counts, worst pairs, and an order that shows them.

It may import numpy and `finedge.data`. `finedge evaluate` and the training have their results from
it, and `finedge.pages` draws it.
"""
