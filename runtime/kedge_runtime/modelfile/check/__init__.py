"""Check a model's bytes before an engine reads them: operands, types, shapes, cost."""
