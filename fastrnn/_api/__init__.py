"""From the caller's form to (T, B, .) and back: argument validation, layouts, parameters, tapes. Private."""
