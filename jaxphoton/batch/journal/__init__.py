"""The journal of a run: what is done, line by line. See `jaxphoton.batch`."""

from jaxphoton.batch.journal.journal import Journal as Journal
from jaxphoton.batch.journal.reading import JournalReader as JournalReader
from jaxphoton.batch.journal.record import Header as Header
from jaxphoton.batch.journal.record import Record as Record
