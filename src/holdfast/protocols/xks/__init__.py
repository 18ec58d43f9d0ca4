"""The four API operations without HTTP, and the pipeline that leads to them."""
