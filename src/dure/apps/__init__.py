"""The composition root: builds the daemons out of the contexts, and supervises them."""
