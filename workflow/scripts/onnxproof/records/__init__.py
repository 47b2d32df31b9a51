"""The JSON files that the pipeline writes and reads back: the type of each, and the function that reads it.

One module for each stage. docs/records.md lists the files; tools/write_schemas.py makes it, and a JSON Schema of each
record, from these types. Modules that a release carries import them for the type checker alone.
"""
