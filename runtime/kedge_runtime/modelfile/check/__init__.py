"""The check of a model's bytes before an engine gets them: operands, types, shapes, cost."""
