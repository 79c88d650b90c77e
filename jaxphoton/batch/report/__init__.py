"""A journal as one HTML page to look at. Host only; never imports jax.

    report = write_report("run.jsonl", "report.html", source=source, summary={"images_per_s": 41.2})

The page stands alone: style, script, data and thumbnails are inside, nothing is fetched, and a content security policy
sees to it that nothing could be. It shows the settings, counts, lengths and openings of the texts, failures by reason,
and the images with their texts, boxes, points and outlines; it can be searched, filtered and sorted.

`collect` makes one pass over the journal: counts of everything, and the images to show. `thumbnails` decodes these;
`page` writes. Memory does not grow with the journal, but for its index of keys. All texts and file names are taken for
hostile: they reach the page as JSON, and the document as text nodes.
"""

from jaxphoton.batch.report.collect import ReportOptions as ReportOptions
from jaxphoton.batch.report.page import Report as Report
from jaxphoton.batch.report.page import write_report as write_report
