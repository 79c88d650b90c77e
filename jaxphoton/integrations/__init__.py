"""jaxphoton inside other systems, one file each; their packages are imported when they are used.

`ray`: captioning with Ray Data (extra `ray`).
"""
