"""The comparison with other runtimes and with this machine's own limit, behind ``make bench``."""
