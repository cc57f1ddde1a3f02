"""`finedge calibrate --max-drop`: which layers stay in float, so that the accuracy is kept.

trials     makes the INT8 model without some units, and measures its damage
timing     interleaved times of models on one thread; what a unit in float costs
search     restores units until the damage is within the budget, and puts others back
outcome    the points to pick from, the record, and the error where no point is good enough
"""
