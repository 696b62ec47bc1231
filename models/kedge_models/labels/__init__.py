"""The label lists that kedge ships."""
