"""The outer shell of asknown: the command line `asknown` and the worked example.

Everything here does things (reads a clock, prints, opens files); what is decided is decided in `alignment` and
`ingestion`, which never import this package.
"""

__all__: list[str] = []
