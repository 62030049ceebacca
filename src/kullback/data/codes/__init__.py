"""How one column becomes features: a fitted, serialisable code for each kind of column.

A code is fitted on training rows, reads later columns as the type it was trained on, and gives pieces that the
encoder puts together in one matrix. None of them looks at the target.
"""
