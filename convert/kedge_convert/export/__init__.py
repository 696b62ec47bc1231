"""Export formats: one module each, twins with the same verbs, and the check of what they write."""
