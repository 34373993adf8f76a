"""What is said of a run, in lines, and what deleting it would take away."""

from awqscope.diagnose.runs.deletion import Deletion
from awqscope.diagnose.runs.notes import Notes
from awqscope.mixedprec.words import write_size


def write_notes(notes: Notes) -> list[str]:
    """Name, tags, whether it is archived, and its notes with their numbers; nothing where nothing
    is said."""
    lines = [f"name: {notes.name}"] if notes.name else []
    lines += [f"tags: {', '.join(notes.tags)}"] if notes.tags else []
    lines += ["archived"] if notes.archived else []
    for number, note in enumerate(notes.notes, 1):
        first, *more = note.text.splitlines() or [""]
        lines.append(f"note {number}, {note.time[:16].replace('T', ' ')} UTC: {first}")
        lines += [f"  {line}" for line in more]
    return lines


def write_deletion(deletion: Deletion) -> list[str]:
    """What would be deleted, an entry a line, the largest first."""
    entries = sorted(deletion.entries, key=lambda entry: -entry[1])
    return [f"  {name}  {write_size(size)}" for name, size in entries]
