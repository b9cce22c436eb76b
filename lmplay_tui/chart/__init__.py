"""Charts as pure functions of arrays: what is shown (`data`), how it is looked at (`view`), and its characters."""
