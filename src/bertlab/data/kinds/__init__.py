"""How the cells of a column are read: one file a kind; see declarations.Kind."""
