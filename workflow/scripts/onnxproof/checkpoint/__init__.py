"""What a model's folder holds, read once, and whether it can be served rightly.

``layout`` says which files of a repository belong to a model, ``reading`` reads them (``Checkpoint``), ``refusals``
names everything in them that would make an answer wrong. Standard library only: the configuration check and the
download ask these questions before any job starts and before any weights are fetched.
"""
