"""Keys by what a step was seen to read: values of observations, selectors that are known, audits.

The observing itself is the executor's.
"""
