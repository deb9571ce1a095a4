"""Checkpoints: what a run needs to go on as if nothing had happened, the same for every layout.

`folder` writes and checks them, `state` says what is in one, `identity` to which run it belongs,
`section` is the recipe's part, `writer` keeps writing out of the way of training.
"""
