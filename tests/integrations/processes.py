"""Which processes there are, by names that are not used again."""

from __future__ import annotations

from pathlib import Path


def processes() -> dict[str, str]:
    """Every running process and its parent's id; the name of a process is its id and the tick it was started at."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The fields behind the program's name: state, parent, ..., start.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if fields[0] != "Z":
            found[f"{process.name}:{fields[19]}"] = fields[1]
    return found


def descendants(pid: int) -> list[str]:
    """The names of all that a process has started, and what those have."""
    running, family = processes(), {str(pid)}
    while new := [
        name for name, parent in running.items() if parent in family and name.partition(":")[0] not in family
    ]:
        family.update(name.partition(":")[0] for name in new)
    return [name for name in running if name.partition(":")[0] in family - {str(pid)}]
