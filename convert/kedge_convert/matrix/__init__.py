"""`kedge build`: a matrix of conversions with gates, cached by content (docs/build.md)."""
