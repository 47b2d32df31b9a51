"""Write README.md's diagram of the rules: Snakemake's own graph of them, without edges that a longer path implies.

`python tools/draw_rules.py` after a rule was added or its inputs changed; a test holds the diagram against the rules.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import networkx

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMAND = ("snakemake", "--rulegraph", "mermaid-js")


def rule_graph() -> networkx.DiGraph:
    """Return the rules of the default target, with an edge from each rule to those that read its outputs.

    An edge is left out where a longer path leads from the one to the other (transitive reduction), and where a rule
    reads what it made of another variant.

    Raises:
        subprocess.CalledProcessError: Snakemake failed.
    """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", run.stdout))
    edges = re.findall(r"(id\d+) --> (id\d+)", run.stdout)
    between = [(names[start], names[end]) for start, end in edges if start != end]
    return networkx.transitive_reduction(networkx.DiGraph(between))


def as_mermaid(graph: networkx.DiGraph) -> str:
    """Return a graph as a fenced Mermaid flowchart, its edges in a fixed order."""
    order = list(networkx.lexicographical_topological_sort(graph))
    edges = sorted(graph.edges, key=lambda edge: (order.index(edge[0]), order.index(edge[1])))
    lines = "".join(f"    {start} --> {end}\n" for start, end in edges)
    return f"```mermaid\nflowchart LR\n{lines}```\n"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    diagram = as_mermaid(rule_graph())
    README.write_text(re.sub(r"```mermaid\n.*?```\n", lambda _: diagram, text, flags=re.DOTALL), encoding="utf-8")
