"""An exported folder opened by the tools that it is for, beside the run that it came from.

`suite` runs what can be run with what is installed. A check compares exact ids, logits or texts.
"""
