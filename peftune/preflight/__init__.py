"""What can be wrong with the machines of a run, found before any weights are loaded.

`facts` is what a rank knows of its machine, `weights` and `memory` are two of them, `checks` judge the
facts of all ranks, `link` measures what lies between them, `perform` does it in order.
"""
