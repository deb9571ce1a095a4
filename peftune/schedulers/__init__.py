"""Hands a run to what starts it: SLURM, Kubernetes, or this machine.

`job` is what a run is to a scheduler, `section` what a site's file says; `slurm`, `kubernetes` and
`local` write it down in their own language and submit it.
"""
