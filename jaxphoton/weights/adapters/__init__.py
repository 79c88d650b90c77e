"""Files of adapters: PEFT's folders, forms of a family's own, and ours. Whatever a file holds that is not computed here
is refused by name: an adapter that is applied in part is another one.
"""

from jaxphoton.weights.adapters.files import load_adapter
from jaxphoton.weights.adapters.merging import merged
from jaxphoton.weights.adapters.native import save_adapter

__all__ = ["load_adapter", "merged", "save_adapter"]
