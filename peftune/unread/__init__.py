"""Keys that nothing reads in a run: tables of them, each with the reason.

A key that the user set and that would change nothing is a misunderstanding, so it ends the run before
anything is trained. A new key that only some runs read gets its line in one of the tables, each of
which is consulted as soon as enough is known.
"""

from peftune.unread.by_recipe import BY_RECIPE
from peftune.unread.by_run import BY_DATA, BY_MODEL, BY_PLAN, Learning, Opened
from peftune.unread.rule import refuse_unread

__all__ = ["BY_DATA", "BY_MODEL", "BY_PLAN", "BY_RECIPE", "Learning", "Opened", "refuse_unread"]
