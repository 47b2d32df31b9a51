"""Snakemake's side: what a job needs, when it runs again, and one run at a time."""
