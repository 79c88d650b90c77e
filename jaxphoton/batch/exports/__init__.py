"""A journal in other forms. See `jaxphoton.batch`."""

from jaxphoton.batch.exports.options import EXISTING as EXISTING
from jaxphoton.batch.exports.options import ExportOptions as ExportOptions
from jaxphoton.batch.exports.options import ExportReport as ExportReport
from jaxphoton.batch.exports.run import FORMS as FORMS
from jaxphoton.batch.exports.run import export as export
from jaxphoton.batch.exports.run import form_of as form_of
