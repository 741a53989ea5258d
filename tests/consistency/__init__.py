"""A checker of consistency: processes full of callers over hot agents, and what became of every write of theirs.

``python -m tests.consistency --seconds 60`` runs it on embedded servers and prints what was counted. With
``--kill relay,redis,stop,flush,clients,backends``, or some of these, servers fail meanwhile; see killer.py.
"""
