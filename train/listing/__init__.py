"""`finedge models`: what can be trained. It is no part of `models`, whose import takes seconds."""
