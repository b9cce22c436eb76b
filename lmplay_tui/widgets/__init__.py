"""Widgets of the workbench. They draw by the line and repaint only what changed; none opens a file or asks the time."""
