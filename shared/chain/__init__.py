"""Who wrote what, in which order: keys, signed notes, hash chains and their witnesses.

Knows nothing of privacy. Formats follow C2SP (signed-note, tlog-checkpoint, tlog-cosignature), so
that standard tools can check them.
"""
